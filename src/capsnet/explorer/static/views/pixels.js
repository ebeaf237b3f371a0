// The input image and its pixel values.
/** @import {Panel, World} from "../types.ts" */
import { inspector } from "../drawings/inspector.js";
import { h, number, replace } from "../dom.js";
import { equation, prose } from "../maths.js";
import { colours } from "../paint.js";

/** @param {HTMLElement} home @returns {Panel} */
export function pixelsView(home) {
  let cursor = { row: 14, column: 14 };
  /** @type {World | null} */
  let shown = null;
  const choose = (/** @type {number} */ row, /** @type {number} */ column) => {
    cursor = { row, column };
    if (shown) draw(shown);
  };
  const grid = inspector({ side: 420, label: "The network's input", onpick: choose, onhover: choose });
  const reading = h("div", { "aria-live": "polite" });
  const patch = h("table", { class: "numbers", "aria-label": "Pixels around the selected one" });
  replace(
    home,
    h("h2", {}, "The network's input"),
    h("div", { class: "columns" },
      h("figure", {}, grid.canvas, h("figcaption", {}, "Point at a pixel, or focus the picture and use the arrow keys.")),
      h("div", { class: "text" },
        prose("{x} has one number per pixel: 0 for paper and 1 for ink. The network gets no other information: no outline, strokes, position or angle."),
        reading, patch,
        prose("Two overlapping digits are added and clipped at 1, as in the paper's MultiMNIST. The network has to find out which ink belongs to which digit."))),
  );

  /** @param {World} world */
  function draw(world) {
    if (!world.trace) return;
    const { shape, data } = world.trace.image;
    const [channels, rows, columns] = shape;
    cursor = { row: Math.min(rows - 1, cursor.row), column: Math.min(columns - 1, cursor.column) };
    grid.show({ data, rows, columns, colour: colours().input, max: 1, cursor });
    const value = (/** @type {number} */ r, /** @type {number} */ c) => (r < 0 || c < 0 || r >= rows || c >= columns ? null : data[r * columns + c]);
    replace(reading, equation(`{x}(row ${cursor.row}, column ${cursor.column}) = [input ${number(value(cursor.row, cursor.column) ?? 0)}]`),
      ...(channels > 1 ? [h("p", { class: "quiet" }, `The image has ${channels} channels; the numbers here are those of the first.`)] : []));
    replace(
      patch,
      h("tbody", {}, ...[-2, -1, 0, 1, 2].map((dr) =>
        h("tr", {}, ...[-2, -1, 0, 1, 2].map((dc) => {
          const x = value(cursor.row + dr, cursor.column + dc);
          return h("td", { class: dr || dc ? "" : "chosen", "--value": x ?? 0 }, x === null ? "·" : number(x, 2));
        })))),
    );
  }

  return {
    update(world, changed) {
      shown = world;
      if (changed.has("trace") || changed.has("view")) draw(world);
    },
  };
}

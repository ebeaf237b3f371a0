// Drawings of the winning capsules: one digit beside the input, or two overlapping digits.
/** @import {Panel, World} from "../types.ts" */
import { chips } from "../drawings/chips.js";
import { h, number, replace } from "../dom.js";
import { equation, prose } from "../maths.js";
import { begin, canvasOf, colours, ink, picture } from "../paint.js";
import { current, focusOf } from "../state.js";

const SIDE = 200;

/** @param {HTMLElement} home @returns {Panel} */
export function reconstructionView(home) {
  const { class_names, has_decoder } = current().info;
  const canvases = Array.from({ length: 4 }, () => canvasOf(SIDE, SIDE, ""));
  const captions = canvases.map(() => h("figcaption", {}));
  const figures = canvases.map((canvas, k) => h("figure", {}, canvas, captions[k]));
  const classes = chips(current());
  const words = h("div", { "aria-live": "polite" });
  replace(
    home,
    h("h2", {}, "Reconstruction: the drawing of one capsule"),
    has_decoder ? h("div", { class: "gallery" }, ...figures) : h("p", { class: "notice" }, "This model was trained without a decoder, so it cannot draw."),
    h("div", { class: "row wide" }, classes.element),
    h("div", { class: "text" },
      prose("All capsules but one are set to zero, and the decoder draws {recon} from this one. Select another class to see the drawing of its capsule. Training made the difference {x} − {recon} small, so the direction of a capsule had to encode thickness, slant and position."),
      words,
      prose("Add a second digit on the left: each of the two longest capsules draws its own digit, although they overlap. Then erase one digit and watch its capsule become short.")),
  );

  /** @param {number} k @param {string} text @param {(context: CanvasRenderingContext2D) => void} draw */
  function panel(k, text, draw) {
    const { context } = begin(canvases[k]);
    draw(context);
    captions[k].textContent = text;
    canvases[k].setAttribute("aria-label", text);
  }

  /** @param {World} world */
  function one(world) {
    const { trace } = world;
    if (!trace?.reconstructions || !trace.reconstruction_errors) return;
    const palette = colours();
    const focus = focusOf(world);
    const [channels, rows, columns] = trace.image.shape;
    const [plane, numbers] = [rows * columns, trace.image.data.length];
    // The mean over the channels.
    const difference = Float32Array.from({ length: plane }, (_, place) => {
      let sum = 0;
      for (let i = place; i < numbers; i += plane) sum += trace.image.data[i] - (trace.reconstructions?.data[focus * numbers + i] ?? 0);
      return sum / channels;
    });
    const fit = SIDE / Math.max(rows, columns);
    panel(0, "input x", (c) => picture(c, trace.image, { width: SIDE, colour: palette.input }));
    panel(1, `drawn by the capsule “${class_names[focus]}”`, (c) => picture(c, trace.reconstructions ?? trace.image, { index: focus, width: SIDE, colour: palette.reco }));
    panel(2, "difference x − x̂: missing ink and added ink", (c) => ink(c, difference, { rows, columns, x: 0, y: 0, width: columns * fit, height: rows * fit, colour: palette.input, negative: palette.reco }));
    figures[3].hidden = true;
    replace(words, equation(`‖{x} − {recon}‖² = [reco ${number(trace.reconstruction_errors[focus], 1)}]`),
      h("p", { class: "quiet" }, `The capsule with the best drawing: “${class_names[trace.reconstruction_errors.indexOf(Math.min(...trace.reconstruction_errors))]}”.`));
  }

  /** @param {World} world */
  function two(world) {
    const { trace } = world;
    if (!trace?.reconstructions) return;
    const palette = colours();
    const [first, second] = trace.speakers;
    const drawn = trace.reconstructions;
    const both = [{ k: first, colour: palette.first }, { k: second, colour: palette.second }];
    panel(0, "input: both digits", (c) => {
      both.forEach(({ colour }, index) => picture(c, trace.layers, { index, width: SIDE, colour, alpha: 0.85 }));
    });
    both.forEach(({ k, colour }, place) =>
      panel(1 + place, `capsule “${class_names[k]}”, length ${number(trace.lengths.data[k], 2)}`, (c) => picture(c, drawn, { index: k, width: SIDE, colour })));
    figures[3].hidden = false;
    panel(3, "both drawings together", (c) => {
      for (const { k, colour } of both) picture(c, drawn, { index: k, width: SIDE, colour, alpha: 0.8 * Math.min(1, 1.5 * trace.lengths.data[k]) });
    });
    replace(words, equation(`‖{v_j}‖:  “${class_names[first]}” [parent ${number(trace.lengths.data[first])}],  “${class_names[second]}” [parent ${number(trace.lengths.data[second])}],  next “${class_names[trace.ranking[2] ?? second]}” [parent ${number(trace.lengths.data[trace.ranking[2] ?? second])}]`));
  }

  return {
    update(world, changed) {
      classes.update(world);
      if (has_decoder && (changed.has("trace") || changed.has("focus") || changed.has("view"))) (world.trace && world.trace.speakers.length > 1 ? two : one)(world);
    },
  };
}

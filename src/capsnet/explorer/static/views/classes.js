// Class capsules, and the drawing of each of their numbers.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {DecodeResponse, SheetResponse} from "../wire.ts" */
import { api, latest } from "../api.js";
import { bars } from "../drawings/bars.js";
import { chips } from "../drawings/chips.js";
import { h, number, replace, slider } from "../dom.js";
import { equation, prose } from "../maths.js";
import { begin, canvasOf, colours, picture, rgba, size } from "../paint.js";
import { change, current, focusOf } from "../state.js";

const SIDE = 240;
const RANGE = 0.8;
const CELL = 48;

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function classesView(home, fail) {
  const { geometry, has_decoder, class_names, measure, absent } = current().info;
  const classes = chips(current());
  const drawn = canvasOf(SIDE, SIDE, "Drawing of the changed capsule");
  const original = canvasOf(110, 110, "Drawing of the capsule as computed");
  const input = canvasOf(110, 110, "The input");
  const sheetCanvas = canvasOf(CELL * 11 + 30, CELL * geometry.class_dim + 20, "Each number changed from −0.25 to 0.25");
  const sheetHome = h("figure", { id: "sheet-figure", hidden: true }, sheetCanvas,
    h("figcaption", {}, "One row per number of the capsule: it changes from −0.25 (left) to 0.25 (right) while the others stay (figure 4 of the paper)."));
  const sheetButton = h("button", { type: "button", id: "sheet", onclick: () => change({ sheet: !current().sheet }) });
  const reset = h("button", { type: "button", id: "pose-reset", onclick: () => change({ pose: null }) }, "Reset");
  const words = h("div", { "aria-live": "polite" });
  const numbers = bars(420, 150, "The numbers of the class capsule");
  /** @type {Map<number, Array<{measure: string, correlation: number} | null>>} */
  const known = new Map();
  const sliders = Array.from({ length: geometry.class_dim }, (_, k) => {
    const label = h("span", {}, h("i", {}, "v"), h("sub", {}, String(k + 1)), h("small", { class: "meaning" }));
    return { label, ...slider({ label, min: -RANGE, max: RANGE, step: 0.005, value: 0, digits: 2, id: `pose-${k}`, oninput: (value) => turn(k, value) }) };
  });
  replace(
    home,
    h("h2", {}, `Class capsules: ${geometry.class_dim === 16 ? "sixteen" : geometry.class_dim} numbers that describe a digit`),
    h("div", { class: "row wide" }, classes.element),
    h("div", { class: "columns" },
      h("div", { class: "text" },
        prose(measure === "length"
          ? "The length of {v_j} is the network's confidence that the class is present. Its direction, these numbers, describes how the digit is written."
          : "The activation of a class capsule is the network's confidence that the class is present. Its pose {v_j}, these numbers, describes how the digit is written."),
        has_decoder && prose("The decoder was trained to draw the digit from these numbers alone. Change a number to see its effect."),
        has_decoder ? h("div", { class: "sliders poses" }, ...sliders.map(({ element }) => element)) : numbers.canvas,
        !has_decoder && h("p", { class: "notice" }, absent.reconstruction ?? "This model was trained without a decoder, so it cannot draw.")),
      h("div", { class: "stack", hidden: !has_decoder },
        h("figure", {}, drawn, h("figcaption", {}, "drawing of these numbers")),
        h("div", { class: "pair" }, h("figure", {}, original, h("figcaption", {}, "as computed")), h("figure", {}, input, h("figcaption", {}, "input"))),
        h("div", { class: "row" }, reset, sheetButton),
        words)),
    sheetHome,
  );

  /** @param {number} k @param {number} value */
  function turn(k, value) {
    const pose = [...poseOf(current())];
    pose[k] = value;
    change({ pose: pose.map((x) => Math.round(x * 10000) / 10000) });
  }

  /** @param {Readonly<World>} world @returns {ArrayLike<number> & Iterable<number>} */
  function poseOf(world) {
    if (world.pose) return world.pose;
    const focus = focusOf(world);
    return world.trace?.capsules.data.subarray(focus * geometry.class_dim, (focus + 1) * geometry.class_dim) ?? [];
  }

  const ask = latest(
    (/** @type {World} */ world) => api.decode({ number: focusOf(world), pose: [...poseOf(world)] }),
    (/** @type {Unpacked<DecodeResponse>} */ answer, world) => {
      picture(begin(drawn).context, answer.image, { width: SIDE, colour: colours().reco });
      document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
      replace(words,
        equation(`‖{v_j}‖ = √ Σ {v_k}² = [parent ${number(answer.length)}]`),
        h("p", { class: "quiet" }, world.pose ? `Changed by hand. The network computed a capsule of length ${number(world.trace?.lengths.data[focusOf(world)] ?? 0)} for “${class_names[focusOf(world)]}”.` : "The values that the network computed."));
    },
    fail,
  );

  const askSheet = latest(
    (/** @type {World} */ world) => api.sheet({ number: focusOf(world), pose: [...poseOf(world)] }),
    drawSheet,
    fail,
  );

  /** @param {Unpacked<SheetResponse>} answer */
  function drawSheet({ offsets, images }) {
    const [dims, across] = images.shape;
    size(sheetCanvas, CELL * across + 30, CELL * dims + 20);
    const { context } = begin(sheetCanvas);
    const palette = colours();
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "center";
    for (let row = 0; row < dims; row++) {
      context.fillStyle = rgba(palette.parent);
      context.fillText(String(row + 1), 14, 20 + row * CELL + CELL / 2);
      for (let column = 0; column < across; column++) {
        const middle = Math.abs(offsets[column]) < 1e-9;
        picture(context, images, { index: row * across + column, x: 30 + column * CELL + 1, y: 20 + row * CELL + 1, width: CELL - 2, colour: middle ? palette.parent : palette.reco });
      }
    }
    context.fillStyle = rgba(palette.quiet);
    offsets.forEach((offset, column) => context.fillText(number(offset, 2), 30 + column * CELL + CELL / 2, 9));
  }

  /** @param {Readonly<World>} world */
  async function nameSliders(world) {
    const focus = focusOf(world);
    if (!known.has(focus)) {
      known.set(focus, []);
      try {
        known.set(focus, (await api.meanings(focus)).meanings);
      } catch (error) {
        known.delete(focus);
        fail(error);
      }
    }
    if (focusOf(current()) !== focus) return;
    sliders.forEach(({ label }, k) => {
      const meaning = known.get(focus)?.[k];
      const small = label.querySelector("small");
      if (!small) return;
      small.textContent = meaning ? MEASURES[meaning.measure]?.[meaning.correlation > 0 ? 1 : 0] ?? meaning.measure : "";
      small.title = meaning ? `Measured on test digits of this class; correlation ${number(meaning.correlation, 2)}` : "";
    });
  }

  return {
    update(world, changed) {
      const { trace } = world;
      if (!trace) return;
      classes.update(world);
      if (!has_decoder) {
        numbers.show(poseOf(world), colours().parent);
        return;
      }
      const fresh = changed.has("trace") || changed.has("focus") || changed.has("view");
      if (fresh) {
        const focus = focusOf(world);
        if (trace.reconstructions) picture(begin(original).context, trace.reconstructions, { index: focus, width: 110, colour: colours().reco });
        picture(begin(input).context, trace.image, { width: 110, colour: colours().input });
        nameSliders(world);
      }
      if (fresh || changed.has("pose")) {
        const pose = poseOf(world);
        sliders.forEach(({ set }, k) => set(pose[k]));
        reset.toggleAttribute("disabled", world.pose === null);
        ask(world);
      }
      if (fresh || changed.has("sheet") || changed.has("pose")) {
        sheetHome.hidden = !world.sheet;
        sheetButton.textContent = world.sheet ? "Hide the sheet" : "Sheet of all numbers";
        sheetButton.setAttribute("aria-expanded", String(world.sheet));
        if (world.sheet) askSheet(world);
      }
    },
  };
}

/** Words for the effect when a number is increased: [the measure falls, the measure rises]. @type {Record<string, [string, string]>} */
const MEASURES = {
  area: ["less ink", "more ink"],
  length: ["shorter stroke", "longer stroke"],
  thickness: ["thinner", "thicker"],
  slant: ["leans left", "leans right"],
  width: ["narrower", "wider"],
  height: ["lower", "taller"],
  across: ["moves left", "moves right"],
  down: ["moves up", "moves down"],
};

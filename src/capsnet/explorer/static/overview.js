// The stages of the network, left to right. Each stage is a tab that opens its detail.
/** @import {World, View} from "./types.ts" */
import { drawCloud } from "./drawings/cloud.js";
import { drawArrows } from "./drawings/arrows.js";
import { h, number, replace } from "./dom.js";
import { begin, canvasOf, colours, ink, largest, picture, rgba } from "./paint.js";
import { change, focusOf, shownStep } from "./state.js";

const SIDE = 148;

/** @typedef {{view: View, title: string, role: string, size: (world: World) => string, step: (world: World) => string,
 *             draw: (context: CanvasRenderingContext2D, world: World) => void}} Stage */

/** @type {Stage[]} */
const STAGES = [
  {
    view: "input", title: "Input", role: "input",
    size: ({ info: { geometry } }) => geometry.image_shape.slice(1).join("×") + (geometry.image_shape[0] > 1 ? `×${geometry.image_shape[0]}` : ""),
    step: () => "",
    draw: drawInput,
  },
  {
    view: "conv1", title: "Conv1 maps", role: "input",
    size: ({ info: { geometry } }) => `${geometry.stem_channels} × ${geometry.maps.join("×")}`,
    step: ({ info: { geometry } }) => `${geometry.stem_kernel}×${geometry.stem_kernel} conv, ReLU`,
    draw: drawMaps,
  },
  {
    view: "primary", title: "Primary capsules", role: "child",
    size: ({ info: { geometry } }) => `${geometry.primary_types} × ${geometry.grid.join("×")}, ${geometry.primary_dim}-D`,
    step: ({ info: { geometry } }) => `${geometry.primary_kernel}×${geometry.primary_kernel} conv, squash`,
    draw: (context, world) => drawArrows(context, world, { side: SIDE, margin: 2, few: true }),
  },
  {
    view: "routing", title: "Votes & routing", role: "vote",
    size: (world) => `${world.info.geometry.in_caps.toLocaleString("en")} votes for “${world.info.class_names[focusOf(world)]}”`,
    step: () => "û = W u",
    draw: (context, world) => drawCloud(context, world, { width: SIDE, height: SIDE, small: true }),
  },
  {
    view: "classes", title: "Class capsules", role: "parent",
    size: ({ info: { geometry } }) => `${geometry.classes} × ${geometry.class_dim}-D`,
    step: (world) => (world.info.max_iterations > 1 ? `routing, r = ${world.at}` : "routing"),
    draw: drawLengths,
  },
  {
    view: "reconstruction", title: "Reconstruction", role: "reco",
    size: ({ info: { geometry, has_decoder } }) => (has_decoder ? geometry.image_shape.slice(1).join("×") : "no decoder"),
    step: () => "decoder",
    draw: drawReconstruction,
  },
];

/** @type {Array<{view: View, title: string, role: string}>} */
const EXTRAS = [
  { view: "control", title: "Compare with max pooling", role: "control" },
  { view: "ablation", title: "Does routing matter here?", role: "vote" },
];

/** @param {View} view */
export function titleOf(view) {
  return [...STAGES, ...EXTRAS].find((one) => one.view === view)?.title ?? view;
}

/** @param {HTMLElement} home @param {World} first */
export function overviewPanel(home, first) {
  const canvases = STAGES.map(({ title }) => canvasOf(SIDE, SIDE, title));
  const tabs = [...STAGES, ...EXTRAS].map(({ view, title, role }, index) => {
    const stage = STAGES[index];
    return h(
      "button",
      {
        type: "button", role: "tab", id: `tab-${view}`, "aria-controls": "detail", class: `tab ${stage ? "stage" : "extra"} ${role}`,
        onclick: () => change({ view }),
        onkeydown: (/** @type {KeyboardEvent} */ event) => walk(event, index),
      },
      ...(stage && first.info.absent[view]
        ? [h("span", { class: "step" }), h("span", { class: "title" }, title), h("span", { class: "none" }, "not shown for this model"), h("span", { class: "size" }, "select it for the reason")]
        : stage
        ? [h("span", { class: "step" }), h("span", { class: "title" }, title), canvases[index], h("span", { class: "size" }, stage.size(first))]
        : [h("span", { class: "title" }, title)]),
    );
  });
  replace(
    home,
    h("div", { role: "tablist", "aria-label": "Stages of the network", class: "tablist" },
      h("div", { class: "stages", role: "presentation" }, ...tabs.slice(0, STAGES.length)),
      h("div", { class: "extras", role: "presentation" }, ...tabs.slice(STAGES.length))),
  );

  /** @param {KeyboardEvent} event @param {number} index */
  function walk(event, index) {
    const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    tabs[(next + tabs.length) % tabs.length].click();
    tabs[(next + tabs.length) % tabs.length].focus();
  }

  return {
    /** @param {World} world @param {Set<keyof World>} changed */
    update(world, changed) {
      [...STAGES, ...EXTRAS].forEach(({ view }, index) => {
        tabs[index].setAttribute("aria-selected", String(view === world.view));
        tabs[index].tabIndex = view === world.view ? 0 : -1;
      });
      if (!["trace", "at", "focus", "info"].some((name) => changed.has(/** @type {keyof World} */ (name))) || !world.trace) return;
      STAGES.forEach((stage, index) => {
        if (world.info.absent[stage.view]) return;
        stage.draw(begin(canvases[index]).context, world);
        const [step, size] = [tabs[index].querySelector(".step"), tabs[index].querySelector(".size")];
        if (step) step.textContent = stage.step(world);
        if (size) size.textContent = stage.size(world);
      });
      canvases[4].setAttribute("aria-label", `${world.info.measure === "length" ? "Lengths" : "Activations"}: ${Array.from(world.trace.lengths.data, (x, k) => `${world.info.class_names[k]} ${number(x, 2)}`).join(", ")}`);
    },
  };
}

/** @param {CanvasRenderingContext2D} context @param {World} world */
function drawInput(context, world) {
  const { trace } = world;
  if (!trace) return;
  const palette = colours();
  if (trace.layers.shape[0] < 2) {
    picture(context, trace.image, { width: SIDE, colour: palette.input });
    return;
  }
  picture(context, trace.layers, { index: 0, width: SIDE, colour: palette.first, alpha: 0.85 });
  picture(context, trace.layers, { index: 1, width: SIDE, colour: palette.second, alpha: 0.85 });
}

/** @param {CanvasRenderingContext2D} context @param {World} world */
function drawMaps(context, world) {
  if (!world.trace?.maps) return;
  const { shape, data } = world.trace.maps;
  const [count, rows, columns] = shape;
  const across = Math.ceil(Math.sqrt(count));
  const cell = SIDE / across;
  const max = largest(data) || 1;
  for (let k = 0; k < count; k++) {
    ink(context, data, {
      rows, columns, offset: k * rows * columns, max, colour: colours().input,
      x: (k % across) * cell + 1, y: Math.floor(k / across) * cell + 1, width: cell - 2, height: cell - 2,
    });
  }
}

/** @param {CanvasRenderingContext2D} context @param {World} world */
function drawLengths(context, world) {
  if (!world.trace) return;
  const palette = colours();
  const { shape, data } = world.trace.iteration_lengths;
  const classes = shape[1];
  const offset = shownStep(world) * classes;
  const shown = Math.min(classes, 12);
  const tall = SIDE / shown;
  const focus = focusOf(world);
  context.font = `${Math.min(12, tall - 2)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (let row = 0; row < shown; row++) {
    const k = classes > shown ? world.trace.ranking[row] : row;
    const y = row * tall;
    context.fillStyle = rgba(palette.line);
    context.fillRect(18, y + tall * 0.22, SIDE - 20, tall * 0.56);
    context.fillStyle = rgba(palette.parent, k === focus ? 1 : 0.5);
    context.fillRect(18, y + tall * 0.22, (SIDE - 20) * data[offset + k], tall * 0.56);
    context.fillStyle = rgba(k === focus ? palette.ink : palette.quiet);
    context.fillText(world.info.class_names[k].slice(0, 2), 2, y + tall / 2);
  }
}

/** @param {CanvasRenderingContext2D} context @param {World} world */
function drawReconstruction(context, world) {
  const trace = world.trace;
  if (!trace?.reconstructions) return;
  const palette = colours();
  if (trace.speakers.length < 2) {
    picture(context, trace.reconstructions, { index: focusOf(world), width: SIDE, colour: palette.reco });
    return;
  }
  trace.speakers.forEach((k, place) => {
    if (trace.reconstructions) {
      picture(context, trace.reconstructions, { index: k, width: SIDE, colour: place ? palette.second : palette.first, alpha: 0.85 * Math.min(1, trace.lengths.data[k] * 1.5) });
    }
  });
}

// Max pooling beside it: what pooling cannot tell apart, and how a CNN's features move against how a pose moves.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {PoolResponse, SweepResponse} from "../wire.ts" */
import { api, latest, scene } from "../api.js";
import { chart, pathChart } from "../drawings/charts.js";
import { h, number, percent, replace } from "../dom.js";
import { prose } from "../maths.js";
import { begin, canvasOf, colours, ink, largest, picture, rgba } from "../paint.js";
import { change, current, focusOf } from "../state.js";

const MAP = 180;
const STRIP = { width: 900, height: 120 };

/** @type {Array<{parameter: World["parameter"], label: string, unit: string}>} */
const PARAMETERS = [
  { parameter: "rotation", label: "Turn", unit: "°" },
  { parameter: "shift_x", label: "Move across", unit: " px" },
  { parameter: "shift_y", label: "Move down", unit: " px" },
  { parameter: "scale", label: "Scale", unit: "×" },
  { parameter: "shear", label: "Shear", unit: "" },
];

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function controlView(home, fail) {
  const { control, class_names } = current().info;
  const maps = ["map", "shuffled", "pooled", "pooled of shuffled"].map((name) => canvasOf(MAP, MAP, name));
  const poolWords = h("div", { "aria-live": "polite" });
  const strip = canvasOf(STRIP.width, STRIP.height, "The digit, step by step");
  const answers = chart(440, 240, "Strength of the class along the way");
  const changes = chart(440, 240, "Relative change along the way");
  const posePath = pathChart(300, 260, "The capsule's numbers along the way");
  const featurePath = pathChart(300, 260, "The CNN's features along the way");
  const sweepWords = h("div", { "aria-live": "polite" });
  const sizeButtons = [2, 4].map((size) => h("button", { type: "button", "data-size": size, "aria-pressed": String(size === 2), onclick: () => setWindow(size) }, `${size}×${size} windows`));
  const parameterButtons = PARAMETERS.map(({ parameter, label }) => h("button", { type: "button", "data-parameter": parameter, onclick: () => change({ parameter }) }, label));
  let windows = 2;
  replace(
    home,
    h("h2", {}, "Max pooling, beside it"),
    h("section", {},
      h("h3", {}, "What pooling cannot tell apart"),
      prose("Max pooling keeps the largest number of each window and forgets where in the window it was. So two maps that differ everywhere can be the same to all that comes after. Below, the numbers of each window of one of this image's Conv1 maps are put in another order; the pooled maps are equal to the last digit."),
      h("div", { class: "row" }, h("div", { class: "segments", role: "group", "aria-label": "Pooling windows" }, ...sizeButtons)),
      h("div", { class: "gallery" },
        figure(maps[0], "a Conv1 map"), figure(maps[1], "its windows shuffled"), figure(maps[2], "max-pooled"), figure(maps[3], "the shuffled one, max-pooled")),
      poolWords),
    h("section", {},
      h("h3", {}, control ? "The same drag, seen by both" : "The same drag, seen by the capsules"),
      prose(control
        ? `Beside the capsules runs a CNN of ${control.parameters.toLocaleString("en")} parameters with max pooling, trained on the same digits${control.test_error === null ? "" : ` (test error ${percent(control.test_error, 2)})`}. Both see the first digit moved step by step. A pose should move along while its length stays; pooled features are meant to stay where they are.`
        : "The first digit is moved step by step. A pose should move along while its length stays. (No max-pooling control for these images comes with this model, so the capsules are alone here.)"),
      h("div", { class: "row" }, h("div", { class: "segments", role: "group", "aria-label": "What changes" }, ...parameterButtons)),
      h("figure", { class: "full" }, strip, h("figcaption", {}, "Above: the input. Below: what the class's capsule draws, its own account of what it sees.")),
      h("div", { class: "columns even" }, h("figure", {}, answers.canvas, answers.legend), h("figure", {}, changes.canvas, changes.legend)),
      h("div", { class: "columns even" }, h("figure", {}, posePath.canvas, posePath.caption), control && h("figure", {}, featurePath.canvas, featurePath.caption)),
      sweepWords),
  );

  /** @param {number} size */
  function setWindow(size) {
    windows = size;
    for (const button of sizeButtons) button.setAttribute("aria-pressed", String(button.dataset.size === String(size)));
    askPool(current());
  }

  const askPool = latest(
    (/** @type {World} */ world) => api.pool({ ...scene(world.digits), channel: world.spot.channel, size: windows }),
    showPool,
    fail,
  );
  const askSweep = latest(
    (/** @type {World} */ world) => api.sweep({ ...scene(world.digits), parameter: world.parameter, focus: focusOf(world) }),
    showSweep,
    fail,
  );

  /** @param {Unpacked<PoolResponse>} answer */
  function showPool(answer) {
    const palette = colours();
    const max = largest(answer.map.data) || 1;
    [answer.map, answer.shuffled, answer.pooled, answer.shuffled_pooled].forEach((tensor, k) => {
      const [rows, columns] = tensor.shape;
      const { context } = begin(maps[k]);
      ink(context, tensor.data, { rows, columns, x: 0, y: 0, width: MAP, height: MAP, max, colour: k < 2 ? palette.input : palette.control });
      if (k < 2) grid(context, rows / answer.size, columns / answer.size);
    });
    const equal = answer.pooled.data.every((value, i) => value === answer.shuffled_pooled.data[i]);
    replace(poolWords, h("p", {}, equal ? "The two pooled maps are exactly equal" : "The pooled maps differ", `, although the largest numbers were moved by ${number(answer.moved, 1)} pixels on average. `,
      h("span", { class: "quiet" }, `Map ${current().spot.channel}; choose another under “Conv1 maps”.`)));
  }

  /** @param {CanvasRenderingContext2D} context @param {number} rows @param {number} columns */
  function grid(context, rows, columns) {
    context.strokeStyle = rgba(colours().control, 0.35);
    context.lineWidth = 0.5;
    context.beginPath();
    for (let k = 0; k <= rows; k++) {
      context.moveTo(0, (k / rows) * MAP);
      context.lineTo(MAP, (k / rows) * MAP);
    }
    for (let k = 0; k <= columns; k++) {
      context.moveTo((k / columns) * MAP, 0);
      context.lineTo((k / columns) * MAP, MAP);
    }
    context.stroke();
  }

  /** @param {Unpacked<SweepResponse>} answer */
  function showSweep(answer) {
    const palette = colours();
    const { unit } = PARAMETERS.find(({ parameter }) => parameter === answer.parameter) ?? PARAMETERS[0];
    const steps = answer.values.length;
    const { context } = begin(strip);
    const cell = Math.min(STRIP.width / steps, STRIP.height / 2);
    for (let k = 0; k < steps; k++) {
      const x = (k * STRIP.width) / steps;
      if (k === answer.origin) {
        context.fillStyle = rgba(palette.parent, 0.12);
        context.fillRect(x, 0, cell, STRIP.height);
      }
      picture(context, answer.images, { index: k, x: x + 1, y: 1, width: cell - 2, colour: palette.input });
      if (answer.reconstructions) picture(context, answer.reconstructions, { index: k, x: x + 1, y: STRIP.height / 2 + 1, width: cell - 2, colour: palette.reco });
    }
    const classes = answer.lengths.shape[1];
    const own = (/** @type {{data: ArrayLike<number>}} */ tensor) => answer.values.map((_, k) => tensor.data[k * classes + answer.focus]);
    const name = class_names[answer.focus];
    answers.show({
      x: answer.values, unit, max: 1, origin: answer.origin,
      lines: [
        { name: `capsule “${name}”, length`, values: own(answer.lengths), colour: palette.parent, role: "parent" },
        ...(answer.control_scores ? [{ name: `CNN's “${name}”`, values: own(answer.control_scores), colour: palette.control, role: "control" }] : []),
      ],
    });
    changes.show({
      x: answer.values, unit, origin: answer.origin,
      lines: [
        { name: "pose: ‖change‖ / ‖pose‖", values: answer.pose_change, colour: palette.parent, role: "parent" },
        ...(answer.feature_change ? [{ name: "CNN's features: ‖change‖ / ‖features‖", values: answer.feature_change, colour: palette.control, role: "control" }] : []),
      ],
    });
    posePath.show({ path: answer.pose_path.data, origin: answer.origin, colour: palette.parent, caption: `The capsule's ${current().info.geometry.class_dim} numbers along the way, on the two directions in which they move most (${Math.round(answer.pose_shown * 100)} % of the movement).` });
    if (answer.feature_path && control) {
      featurePath.show({ path: answer.feature_path.data, origin: answer.origin, colour: palette.control, caption: `The CNN's ${control.features} features along the way (${Math.round((answer.feature_shown ?? 0) * 100)} % of the movement).` });
    }
    const kept = answer.lengths.shape[0] ? answer.values.filter((_, k) => top(answer.lengths, k) === top(answer.lengths, answer.origin)).length : 0;
    const keptControl = answer.control_scores ? answer.values.filter((_, k) => answer.control_scores && top(answer.control_scores, k) === top(answer.control_scores, answer.origin)).length : null;
    replace(sweepWords, h("p", {}, `The capsules keep their answer in ${kept} of ${steps} steps`, keptControl === null ? ". " : `, the CNN in ${keptControl}. `,
      h("span", { class: "quiet" }, "One image shows how it works, not which is better: for that, see the measurements over whole test sets in the project's results.")));
  }

  return {
    update(world, changed) {
      for (const button of parameterButtons) button.setAttribute("aria-pressed", String(button.dataset.parameter === world.parameter));
      if (changed.has("trace") || changed.has("view")) askPool(world);
      if (changed.has("trace") || changed.has("view") || changed.has("parameter") || changed.has("focus")) askSweep(world);
    },
  };
}

/** The strongest class of one step. @param {{shape: number[], data: ArrayLike<number>}} tensor @param {number} row */
function top({ shape, data }, row) {
  const own = Array.from({ length: shape[1] }, (_, k) => data[row * shape[1] + k]);
  return own.indexOf(Math.max(...own));
}

/** @param {HTMLElement} canvas @param {string} text */
function figure(canvas, text) {
  return h("figure", {}, canvas, h("figcaption", {}, text));
}

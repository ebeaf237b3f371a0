// Compare with max pooling: what pooling loses, and how a CNN's features and a capsule's pose change.
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
  const { control, class_names, measure, absent, has_decoder } = current().info;
  const maps = ["map", "shuffled", "pooled", "pooled of shuffled"].map((name) => canvasOf(MAP, MAP, name));
  const poolWords = h("div", { "aria-live": "polite" });
  const strip = canvasOf(STRIP.width, STRIP.height, "The digit in each step");
  const answers = chart(440, 240, "Score of the class in each step");
  const changes = chart(440, 240, "Relative change in each step");
  const posePath = pathChart(300, 260, "The capsule's numbers in each step");
  const featurePath = pathChart(300, 260, "The CNN's features in each step");
  const sweepWords = h("div", { "aria-live": "polite" });
  const sizeButtons = [2, 4].map((size) => h("button", { type: "button", "data-size": size, "aria-pressed": String(size === 2), onclick: () => setWindow(size) }, `${size}×${size} windows`));
  const parameterButtons = PARAMETERS.map(({ parameter, label }) => h("button", { type: "button", "data-parameter": parameter, onclick: () => change({ parameter }) }, label));
  let windows = 2;
  replace(
    home,
    h("h2", {}, "Compare with max pooling"),
    absent.conv1 ? h("p", { class: "notice" }, `Pooling is shown on Conv1 maps. ${absent.conv1}`) : h("section", {},
      h("h3", {}, "Different maps, the same pooled result"),
      prose("Max pooling keeps the largest number of each window and loses its position in the window. Two very different maps can therefore give the same result to all later layers. Below, the numbers in each window of a Conv1 map of this image are reordered. The two pooled maps are exactly equal."),
      h("div", { class: "row" }, h("div", { class: "segments", role: "group", "aria-label": "Pooling windows" }, ...sizeButtons)),
      h("div", { class: "gallery" },
        figure(maps[0], "a Conv1 map"), figure(maps[1], "with shuffled windows"), figure(maps[2], "the map, max-pooled"), figure(maps[3], "the shuffled map, max-pooled")),
      poolWords),
    h("section", {},
      h("h3", {}, control ? "The same movement for both networks" : "The same movement for the capsules"),
      prose(control
        ? `The control is a CNN of ${control.parameters.toLocaleString("en")} parameters with max pooling, trained on the same digits${control.test_error === null ? "" : ` (test error ${percent(control.test_error, 2)})`}. Both networks get the first digit, moved step by step. A capsule's pose should change with the digit while its ${measure} stays. Pooled features should stay the same.`
        : `The network gets the first digit, moved step by step. A capsule's pose should change with the digit while its ${measure} stays. (There is no max-pooling control for these images.)`),
      h("div", { class: "row" }, h("div", { class: "segments", role: "group", "aria-label": "What changes" }, ...parameterButtons)),
      h("figure", { class: "full" }, strip, h("figcaption", {}, has_decoder ? "Above: the input. Below: the drawing of the class capsule." : "The input. Without a decoder there are no drawings of the class capsule.")),
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
    replace(poolWords, h("p", {}, equal ? "The two pooled maps are exactly equal" : "The pooled maps differ", `; the largest numbers moved by ${number(answer.moved, 1)} pixels on average. `,
      h("span", { class: "quiet" }, `This is map ${current().spot.channel}. Select another one under “Conv1 maps”.`)));
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
    if (answer.control_scores) change({ control: answer.control_scores.data.slice(answer.origin * classes, (answer.origin + 1) * classes) });
    const own = (/** @type {{data: ArrayLike<number>}} */ tensor) => answer.values.map((_, k) => tensor.data[k * classes + answer.focus]);
    const name = class_names[answer.focus];
    answers.show({
      x: answer.values, unit, max: 1, origin: answer.origin,
      lines: [
        { name: `capsule “${name}”, ${measure}`, values: own(answer.lengths), colour: palette.parent, role: "parent" },
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
    posePath.show({ path: answer.pose_path.data, origin: answer.origin, colour: palette.parent, caption: `The capsule's ${current().info.geometry.class_dim} numbers in each step, projected onto their two main directions (${Math.round(answer.pose_shown * 100)} % of the change).` });
    if (answer.feature_path && control) {
      featurePath.show({ path: answer.feature_path.data, origin: answer.origin, colour: palette.control, caption: `The CNN's ${control.features} features in each step, projected in the same way (${Math.round((answer.feature_shown ?? 0) * 100)} % of the change).` });
    }
    const kept = answer.lengths.shape[0] ? answer.values.filter((_, k) => top(answer.lengths, k) === top(answer.lengths, answer.origin)).length : 0;
    const keptControl = answer.control_scores ? answer.values.filter((_, k) => answer.control_scores && top(answer.control_scores, k) === top(answer.control_scores, answer.origin)).length : null;
    replace(sweepWords, h("p", {}, `The capsules keep their answer in ${kept} of ${steps} steps`, keptControl === null ? ". " : `, the CNN in ${keptControl}. `,
      h("span", { class: "quiet" }, "One image cannot show which network is better. The project's results compare them on whole test sets.")));
  }

  return {
    update(world, changed) {
      for (const button of parameterButtons) button.setAttribute("aria-pressed", String(button.dataset.parameter === world.parameter));
      if (!absent.conv1 && (changed.has("trace") || changed.has("view"))) askPool(world);
      if (changed.has("trace") || changed.has("view") || changed.has("parameter") || changed.has("focus")) askSweep(world);
    },
    close: () => change({ control: null }), // the digit may change before the view opens again
  };
}

/** Return the class with the highest score in one step. @param {{shape: number[], data: ArrayLike<number>}} tensor @param {number} row */
function top({ shape, data }, row) {
  const own = Array.from({ length: shape[1] }, (_, k) => data[row * shape[1] + k]);
  return own.indexOf(Math.max(...own));
}

/** @param {HTMLElement} canvas @param {string} text */
function figure(canvas, text) {
  return h("figure", {}, canvas, h("figcaption", {}, text));
}

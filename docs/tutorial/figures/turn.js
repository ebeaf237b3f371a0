// Turn a digit: the control's features against the class capsule, and T′, which predicts the pose.
import { asking, begin, canvasOf, colours, digitButtons, digits, drawn, engine, h, layer, number, panel, percent, rgba, slider } from "./common.js";

const SIDE = 170;

export async function figure() {
  const [{ pixels }, maps] = await Promise.all([digits(), fetch(new URL("../measured.json", import.meta.url)).then((response) => response.json())]);
  let [digit, at] = [2, 10];
  const image = panel("the digit");
  const paths = [canvasOf(SIDE, SIDE, "The path of the pose"), canvasOf(SIDE, SIDE, "The path of the CNN's features")];
  const said = h("p", { class: "verdict", "aria-live": "polite" });
  const pictures = ["turned by 15°: drawn from its pose", "drawn from T′ · the pose before"].map((label) => panel(label));
  const error = h("p", { class: "verdict", "aria-live": "polite" });
  /** @type {any} */
  let answer = null;

  const ask = await asking(
    digit,
    (k) => Promise.all([k, engine.ask("sweep", { layers: [layer(pixels(k))], parameter: "rotation", focus: k }), predict(k)]),
    ([k, found, pair]) => { answer = { ...found, ...pair, asked: k }; draw(); },
    said);

  /** The pose of the turned digit, and what T′ makes of the pose before. @param {number} k */
  async function predict(k) {
    const ask = (motion) => engine.ask("trace", { layers: [layer(pixels(k), motion)], iterations: maps.iterations, focus: k });
    const [before, after] = [await ask({}), await ask({ rotation: maps.degrees })];
    const dim = before.capsules.shape[1];
    const pose = (trace) => Array.from(trace.capsules.data.subarray(k * dim, (k + 1) * dim));
    const [from, to] = [pose(before), pose(after)];
    const predicted = maps.maps[k].map((row) => row.reduce((sum, weight, index) => sum + weight * from[index], 0));
    const off = (vector) => Math.hypot(...vector.map((value, index) => value - to[index])) / Math.hypot(...to);
    const [seen, guessed] = await Promise.all([to, predicted].map((vector) => engine.ask("decode", { number: k, pose: vector })));
    return { seen, guessed, off: off(predicted), unchanged: off(from) };
  }

  function path(canvas, points, colour) {
    const { context } = begin(canvas);
    const reach = Math.max(...points.data.map(Math.abs), 1e-9) * 1.15;
    const place = (index) => [SIDE / 2 + (points.data[2 * index] / reach) * SIDE / 2, SIDE / 2 - (points.data[2 * index + 1] / reach) * SIDE / 2];
    context.strokeStyle = rgba(colour, 0.6);
    context.lineWidth = 2;
    context.beginPath();
    for (let index = 0; index < points.shape[0]; index++) context.lineTo(...place(index));
    context.stroke();
    context.fillStyle = rgba(colour);
    context.beginPath();
    context.arc(...place(at), 6, 0, 2 * Math.PI);
    context.fill();
  }

  function draw() {
    const palette = colours();
    image.show(answer.images, { index: at });
    path(paths[0], answer.pose_path, palette.parent);
    path(paths[1], answer.feature_path, palette.control);
    const classes = answer.lengths.shape[1];
    const { asked } = answer; // the digit of this answer, not one selected since
    said.textContent = `Turned by ${answer.values[at]}°. The capsule “${asked}” has length ${number(answer.lengths.data[at * classes + asked], 2)}; its pose changed by ${percent(answer.pose_change[at], 0)}. The CNN's score is ${number(answer.control_scores.data[at * classes + asked], 2)}; its features changed by ${percent(answer.feature_change[at], 0)}.`;
    pictures[0].show(answer.seen.image, { colour: palette.reco });
    pictures[1].show(answer.guessed.image, { colour: palette.reco });
    error.textContent = `T′ misses the pose of this turned digit by ${percent(answer.off, 0)} of its length; the unchanged pose misses it by ${percent(answer.unchanged, 0)}. Over ${maps.examples} held-out digits T′ explains R² = ${number(maps.r2, 2)} of the poses' variance, the unchanged pose ${number(maps.r2_unchanged, 2)}.`;
    Object.assign(error.dataset, { off: answer.off, unchanged: answer.unchanged });
  }

  drawn(draw);
  const turn = slider({ label: "turn", min: 0, max: 16, step: 1, value: at, digits: 0, oninput: (value) => { at = value; draw(); } });
  return [
    digitButtons(digit, (k) => { digit = k; ask(k); }),
    h("div", { class: "panels" }, image.element, ...paths.map((canvas, index) => h("figure", { class: "panel" }, canvas, h("figcaption", {}, ["pose of the class capsule: 17 angles", "last hidden layer of the CNN"][index])))),
    turn.element, said,
    h("div", { class: "panels" }, ...pictures.map(({ element }) => element)), error,
  ];
}

// The network from image to reconstruction, with every shape, for a digit of the reader's choice.
import { asking, begin, canvasOf, colours, digitButtons, digits, drawn, engine, h, ink, layer, number, panel, rgba, trace } from "./common.js";

const SIDE = 130;

export async function figure() {
  const { pixels } = await digits();
  const { geometry, class_names: names } = await engine.ask("model", {});
  /** @type {any} */
  let answer = null;
  const image = panel(`image: ${geometry.image_shape.slice(1).join(" × ")}`, SIDE);
  const drawing = panel(`reconstruction: ${geometry.image_shape.slice(1).join(" × ")}`, SIDE);
  const stages = [`Conv1: ${geometry.stem_channels} × ${geometry.maps.join(" × ")}`, `primary capsules: ${geometry.in_caps} of ${geometry.primary_dim} numbers`, `votes: ${geometry.in_caps} × ${geometry.classes} of ${geometry.class_dim} numbers`, `class capsules: ${geometry.classes} of ${geometry.class_dim} numbers`];
  const canvases = stages.map((label) => canvasOf(SIDE, SIDE, label));
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  const ask = await asking(2, (k) => trace([layer(pixels(k))], geometry.iterations), (found) => { answer = found; draw(); }, words);

  function draw() {
    const palette = colours();
    image.show(answer.image);
    const [count, rows, columns] = answer.maps.shape;
    const maps = begin(canvases[0]).context;
    const max = Math.max(...answer.maps.data);
    for (let k = 0; k < Math.min(16, count); k++) ink(maps, answer.maps.data, { rows, columns, offset: k * rows * columns, max, colour: palette.input, x: (k % 4) * SIDE / 4, y: Math.floor(k / 4) * SIDE / 4, width: SIDE / 4 - 1, height: SIDE / 4 - 1 });
    const [down, across] = geometry.grid;
    const primary = begin(canvases[1]).context;
    const types = Math.min(16, geometry.primary_types);
    for (let k = 0; k < types; k++) ink(primary, answer.presence.data, { rows: down, columns: across, offset: k * down * across, max: 1, colour: palette.child, x: (k % 4) * SIDE / 4, y: Math.floor(k / 4) * SIDE / 4, width: SIDE / 4 - 1, height: SIDE / 4 - 1 });
    const votes = begin(canvases[2]).context;
    const reach = Math.max(...answer.cloud.points.data.map(Math.abs)) || 1;
    votes.fillStyle = rgba(palette.vote, 0.4);
    for (let i = 0; i < geometry.in_caps; i++) votes.fillRect(SIDE / 2 + answer.cloud.points.data[2 * i] / reach * SIDE / 2, SIDE / 2 - answer.cloud.points.data[2 * i + 1] / reach * SIDE / 2, 2, 2);
    const bars = begin(canvases[3]).context;
    answer.lengths.data.forEach((length, k) => { bars.fillStyle = rgba(palette.parent, k === answer.ranking[0] ? 1 : 0.45); bars.fillRect(0, (k * SIDE) / geometry.classes + 2, SIDE * length, SIDE / geometry.classes - 4); });
    const best = answer.ranking[0];
    if (answer.reconstructions) drawing.show(answer.reconstructions, { index: best, colour: palette.reco });
    words.textContent = `The longest capsule is “${names[best]}” with length ${number(answer.lengths.data[best])}.${answer.reconstruction_errors ? ` Its drawing misses the image by ‖x − x̂‖² = ${number(answer.reconstruction_errors[best], 1)}.` : ""}`;
    Object.assign(words.dataset, { best, length: answer.lengths.data[best] });
  }

  drawn(draw);
  return [digitButtons(2, ask), h("div", { class: "panels three" }, image.element, ...canvases.map((canvas, at) => h("figure", { class: "panel" }, canvas, h("figcaption", {}, stages[at]))), drawing.element), words];
}

// Squash, from a real capsule: ‖s‖ and ‖v‖ along the curve that the library computes.
import { arrow } from "../../explorer/paint.js";
import { begin, canvasOf, colours, digits, drawn, engine, h, layer, number, rgba, slider, trace } from "./common.js";

const [WIDE, TALL] = [350, 230];

export async function figure() {
  const { pixels } = await digits();
  const layers = [layer(pixels(4))];
  const { presence: lengths } = await trace(layers);
  const child = lengths.data.indexOf(Math.min(...lengths.data));
  const answer = await engine.ask("child", { layers, iterations: 3, child, parent: 4 });
  const points = answer.squash_curve.data;
  const count = answer.squash_curve.shape[0];
  const end = points[2 * (count - 1)];
  let [at, angle] = [30, 35];
  const plot = canvasOf(WIDE, TALL, "Length before and after squash");
  const compass = canvasOf(TALL, TALL, "The capsule before and after squash");
  const words = h("p", { class: "verdict", "aria-live": "polite" });

  function draw() {
    const palette = colours();
    const { context } = begin(plot);
    const toX = (x) => 30 + (x / end) * (WIDE - 40);
    const toY = (y) => TALL - 25 - y * (TALL - 45);
    context.strokeStyle = rgba(palette.line);
    for (const y of [0, 0.5, 1]) { context.beginPath(); context.moveTo(30, toY(y)); context.lineTo(WIDE - 10, toY(y)); context.stroke(); }
    context.fillStyle = rgba(palette.quiet);
    context.font = "12px system-ui, sans-serif";
    for (const y of [0, 0.5, 1]) context.fillText(String(y), 6, toY(y) + 4);
    context.fillText("‖s‖ →", WIDE - 50, TALL - 6);
    context.strokeStyle = rgba(palette.parent);
    context.lineWidth = 2.5;
    context.beginPath();
    for (let index = 0; index < count; index++) context.lineTo(toX(points[2 * index]), toY(points[2 * index + 1]));
    context.stroke();
    const dot = (x, y, colour) => { context.fillStyle = rgba(colour); context.beginPath(); context.arc(toX(x), toY(y), 6, 0, 2 * Math.PI); context.fill(); };
    dot(answer.before_length, answer.length, palette.child);
    const [s, v] = [points[2 * at], points[2 * at + 1]];
    dot(s, v, palette.parent);
    const { context: other } = begin(compass);
    const middle = TALL / 2;
    const unit = (TALL / 2 - 8) / end;
    other.strokeStyle = rgba(palette.line);
    other.beginPath(); other.arc(middle, middle, unit, 0, 2 * Math.PI); other.stroke();
    const [dx, dy] = [Math.cos((angle * Math.PI) / 180), -Math.sin((angle * Math.PI) / 180)];
    other.lineWidth = 3;
    other.strokeStyle = rgba(palette.quiet, 0.6); arrow(other, middle, middle, s * unit * dx, s * unit * dy, 10);
    other.strokeStyle = rgba(palette.parent); arrow(other, middle, middle, v * unit * dx, v * unit * dy, 10);
    words.textContent = `A vector of length ${number(s, 2)} becomes one of length ${number(v, 2)}, in the same direction. The green dot is primary capsule ${child} of this 4: ${number(answer.before_length, 2)} becomes ${number(answer.length, 2)}.`;
    Object.assign(words.dataset, { s, v });
  }

  drawn(draw);
  const long = slider({ label: "length", min: 0, max: count - 1, step: 1, value: at, digits: 0, oninput: (value) => { at = value; draw(); } });
  const round = slider({ label: "angle", min: 0, max: 360, step: 5, value: angle, digits: 0, unit: "°", oninput: (value) => { angle = value; draw(); } });
  return [h("div", { class: "panels" }, h("figure", { class: "panel" }, plot), h("figure", { class: "panel" }, compass, h("figcaption", {}, "grey: s, violet: v; the circle has radius 1"))), long.element, round.element, words];
}

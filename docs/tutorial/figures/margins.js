// The margin loss against the capsule's length, with sliders for its margins.
import { asking, begin, canvasOf, colours, digits, drawn, engine, h, layer, number, rgba, slider, trace } from "./common.js";

const [WIDE, TALL] = [440, 240];
const POINTS = 101;

export async function figure() {
  const { pixels } = await digits();
  const { lengths } = await trace([layer(pixels(2))]);
  const own = Array.from(lengths.data);
  const classes = own.length;
  const margins = [0.9, 0.1, 0.5];
  const grid = Array.from({ length: POINTS }, (_, at) => at / (POINTS - 1));
  const plot = canvasOf(WIDE, TALL, "Loss against length, for a present and an absent class");
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  /** @type {number[]} */
  let terms = [];
  const ask = await asking(
    null,
    () => engine.ask("margin", { lengths: [...grid, ...grid, ...own], targets: [...grid.map(() => 1), ...grid.map(() => 0), ...own.map((_, k) => (k === 2 ? 1 : 0))], margins: [...margins] }),
    (found) => { terms = Array.from(found.terms.data); draw(); }, words);

  function draw() {
    const palette = colours();
    const { context } = begin(plot);
    const toX = (x) => 30 + x * (WIDE - 40);
    const toY = (y) => TALL - 25 - y * (TALL - 40);
    context.strokeStyle = rgba(palette.line);
    context.strokeRect(toX(0), toY(1), toX(1) - toX(0), toY(0) - toY(1));
    context.lineWidth = 2.5;
    [palette.parent, palette.reco].forEach((colour, kind) => {
      context.strokeStyle = rgba(colour);
      context.beginPath();
      grid.forEach((x, at) => context.lineTo(toX(x), toY(terms[kind * POINTS + at])));
      context.stroke();
    });
    context.fillStyle = rgba(palette.quiet);
    context.font = "12px system-ui, sans-serif";
    context.fillText("length ‖v‖ →", WIDE - 90, TALL - 6);
    const loss = terms.slice(2 * POINTS, 2 * POINTS + classes).reduce((sum, term) => sum + term, 0);
    words.textContent = `Violet: a class that is there; red: one that is not. For this digit 2 the loss is ${number(loss, 4)}: the sum over its ${classes} capsules.`;
    words.dataset.loss = String(loss);
  }

  drawn(draw);
  const sliders = ["m⁺", "m⁻", "λ"].map((label, at) => slider({ label, min: 0, max: 1, step: 0.05, value: margins[at], oninput: (value) => { margins[at] = value; ask(null); } }));
  return [h("figure", { class: "panel wide" }, plot), ...sliders.map(({ element }) => element), words];
}

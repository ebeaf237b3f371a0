// Turn one of the sixteen numbers, on several digits at once.
import { asking, colours, digits, drawn, engine, h, layer, number, panel, slider, trace } from "./common.js";

const SHOWN = [0, 2, 3, 4, 6, 9];

export async function figure() {
  const { pixels } = await digits();
  const meanings = await Promise.all(SHOWN.map((k) => engine.ask("meanings", { number: k })));
  const poses = [];
  for (const k of SHOWN) {
    const { capsules } = await trace([layer(pixels(k))]);
    const dim = capsules.shape[1];
    poses.push(Array.from(capsules.data.subarray(k * dim, (k + 1) * dim)));
  }
  const dim = poses[0].length;
  let [which, amount] = [0, 0];
  const panels = SHOWN.map((k) => panel(`${k}`, 86));
  /** @type {any[]} */
  let images = [];
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  const ask = await asking(
    null,
    () => Promise.all(SHOWN.map((k, at) => engine.ask("decode", { number: k, pose: poses[at].map((value, d) => (d === which ? value + amount : value)) }))),
    (found) => { images = found; draw(); }, words);

  function draw() {
    images.forEach(({ image }, at) => {
      panels[at].show(image, { colour: colours().reco });
      const meaning = meanings[at].meanings[which];
      panels[at].caption.textContent = meaning ? `${SHOWN[at]}: ${meaning.measure}` : `${SHOWN[at]}: no clear word`;
    });
    words.textContent = `Number ${which + 1} of ${dim}, changed by ${number(amount, 2)}. The words under the drawings are measured, and appear only where an effect is clear.`;
    words.dataset.sum = String(images[0].image.data.reduce((sum, value) => sum + value, 0));
  }

  drawn(draw);
  return [
    slider({ label: "number", min: 1, max: dim, step: 1, value: 1, digits: 0, oninput: (value) => { which = value - 1; ask(null); } }).element,
    slider({ label: "change", min: -0.5, max: 0.5, step: 0.05, value: 0, oninput: (value) => { amount = value; ask(null); } }).element,
    h("div", { class: "panels" }, ...panels.map(({ element }) => element)), words,
  ];
}

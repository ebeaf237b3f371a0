// Two digits in one image: fade one out, and watch its capsule let go.
import { asking, colours, digits, drawn, h, layer, number, panel, slider, trace } from "./common.js";

const [FIRST, SECOND] = [8, 0];

export async function figure() {
  const { pixels } = await digits();
  const [first, second] = [pixels(FIRST), pixels(SECOND)];
  let ink = 1;
  /** @type {any} */
  let answer = null;
  const panels = ["both digits", `the capsule “${FIRST}” draws`, `the capsule “${SECOND}” draws`].map((label) => panel(label));
  const bars = [FIRST, SECOND].map((k) => h("meter", { min: 0, max: 1, value: 0, "aria-label": `Length of the capsule ${k}` }));
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  const ask = await asking(
    null,
    () => trace([layer(first, { shift_x: -3 }), layer(second.map((value) => value * ink), { shift_x: 3 })]),
    (found) => { answer = found; draw(); }, words);

  function draw() {
    const palette = colours();
    panels[0].show(answer.image);
    [FIRST, SECOND].forEach((k, at) => {
      panels[1 + at].show(answer.reconstructions, { index: k, colour: [palette.first, palette.second][at] });
      bars[at].value = answer.lengths.data[k];
    });
    words.textContent = `‖v‖ is ${number(answer.lengths.data[FIRST], 2)} for “${FIRST}” and ${number(answer.lengths.data[SECOND], 2)} for “${SECOND}”, with ${Math.round(ink * 100)} % of the ${SECOND}'s ink.`;
    Object.assign(words.dataset, { first: answer.lengths.data[FIRST], second: answer.lengths.data[SECOND] });
  }

  drawn(draw);
  return [
    h("div", { class: "panels" }, ...panels.map(({ element }) => element)),
    h("div", { class: "bars" }, ...[FIRST, SECOND].map((k, at) => h("label", {}, `“${k}” `, bars[at]))),
    slider({ label: `ink of the ${SECOND}`, min: 0, max: 1, step: 0.05, value: 1, oninput: (value) => { ink = value; ask(null); } }).element, words,
  ];
}

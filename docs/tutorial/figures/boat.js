// The boat and the house: two parts vote for the pose of two wholes, and the library's routing decides.
// A pose is (a, b, x, y): a + ib is size and angle, x + iy the place. A part that belongs to a whole at a fixed place
// predicts the whole's pose by a 4×4 matrix: û = W u, as in equation 2.
import { asking, drawn, engine, h, number, replace, slider, svg } from "./common.js";

const REACH = 2;
const ROUNDS = 5;
const WHOLES = ["boat", "house"];
const PARTS = ["triangle", "rectangle"];
/** Where a part belongs in a whole: angle in degrees, x, y. */
export const PLACES = { boat: [[90, 0.3, 0.45], [0, 0, -0.5]], house: [[0, 0, 0.6], [90, 0, -0.4]] };
const SHAPES = { triangle: "M0 -0.45 L0.5 0.35 L-0.5 0.35 Z", rectangle: "M-0.8 -0.3 H0.8 V0.3 H-0.8 Z" };

/** The matrix W of a part and a whole, [in][out]: the whole's pose is linear in the part's. */
export function matrixOf([degrees, x, y]) {
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  // whole = part ∘ place⁻¹: w = p / r, and its position is t − w ρ, with r = cos + i sin and ρ = x + iy.
  return [
    [cos, -sin, -(cos * x + sin * y), sin * x - cos * y],
    [sin, cos, -(sin * x - cos * y), -(cos * x + sin * y)],
    [0, 0, 1, 0],
    [0, 0, 0, 1],
  ];
}

/** @param {{angle: number, x: number, y: number}} part */
export const poseOf = ({ angle, x, y }) => [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180), x, y];

/** W (in_caps, in_dim, out_caps, out_dim). */
export const weight = PARTS.map((_, part) => Array.from({ length: 4 }, (_, row) => WHOLES.map((whole) => matrixOf(PLACES[whole][part])[row])));

export async function figure() {
  const parts = PARTS.map((_, at) => ({ angle: [30, 100][at], x: [-0.7, 0.6][at], y: [0.5, -0.4][at] }));
  let round = 0;
  /** @type {any} */
  let answer = null;
  const draw = () => show();
  const shapes = PARTS.map((name, at) => svg("path", { d: SHAPES[name], class: `part p${at}`, tabindex: 0, role: "button", "aria-label": `The ${name}; arrow keys move it, the keys l and r turn it`, onpointerdown: (event) => grab(event, at), onkeydown: (event) => keys(event, at) }));
  const ghosts = WHOLES.map((whole) => PARTS.map((_, part) => svg("g", { class: `ghost ${whole}`, "data-part": part }, ...PARTS.map((name, other) => svg("path", { d: SHAPES[name], transform: moved(...PLACES[whole][other]) })))));
  const plane = svg("svg", { viewBox: `${-REACH} ${-REACH} ${2 * REACH} ${2 * REACH}`, class: "world", role: "group", "aria-label": "The world: move and turn the parts" }, ...ghosts.flat(), ...shapes);
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  const table = h("div", { class: "scroll", tabindex: 0 });
  const step = h("button", { type: "button", id: "boat-step", onclick: () => { round = (round + 1) % ROUNDS; draw(); } }, "Next iteration");
  const turns = parts.map((part, at) => slider({ label: `turn the ${PARTS[at]}`, min: -180, max: 180, step: 5, value: part.angle, digits: 0, unit: "°", oninput: (value) => { part.angle = value; change(); } }));

  function moved(degrees, x, y) { return `translate(${x} ${-y}) rotate(${-degrees})`; }

  function change() { round = 0; ask(null); }

  function place(whole) {
    PLACES[whole].forEach(([angle, x, y], at) => Object.assign(parts[at], { angle, x, y }));
    turns.forEach((turn, at) => turn.set(parts[at].angle));
    change();
  }

  function grab(down, at) {
    down.preventDefault();
    const shape = shapes[at];
    shape.setPointerCapture(down.pointerId);
    const move = (event) => {
      const box = plane.getBoundingClientRect();
      const inside = (value) => Math.max(-REACH, Math.min(REACH, value));
      parts[at].x = inside(((event.clientX - box.left) / box.width - 0.5) * 2 * REACH);
      parts[at].y = inside((0.5 - (event.clientY - box.top) / box.height) * 2 * REACH);
      change();
    };
    shape.addEventListener("pointermove", move);
    for (const end of ["pointerup", "pointercancel"]) shape.addEventListener(end, () => shape.removeEventListener("pointermove", move), { once: true });
  }

  function keys(event, at) {
    const by = { ArrowLeft: [-0.1, 0, 0], ArrowRight: [0.1, 0, 0], ArrowUp: [0, 0.1, 0], ArrowDown: [0, -0.1, 0], l: [0, 0, 15], r: [0, 0, -15] }[event.key];
    if (!by) return;
    event.preventDefault();
    parts[at].x += by[0]; parts[at].y += by[1]; parts[at].angle += by[2];
    turns[at].set(parts[at].angle);
    change();
  }

  function show() {
    parts.forEach(({ angle, x, y }, at) => shapes[at].setAttribute("transform", moved(angle, x, y)));
    const of = (tensor, ...index) => tensor.data[index.reduce((flat, value, axis) => flat * tensor.shape[axis] + value, 0)];
    WHOLES.forEach((_, whole) => PARTS.forEach((_, part) => {
      const [a, b, x, y] = [0, 1, 2, 3].map((d) => of(answer.votes, part, whole, d));
      ghosts[whole][part].setAttribute("transform", moved((Math.atan2(b, a) * 180) / Math.PI, x, y));
      ghosts[whole][part].style.opacity = String(0.08 + 0.5 * of(answer.couplings, round, part, whole));
    }));
    const cell = (value) => h("td", {}, number(value));
    replace(table, h("table", {}, h("thead", {}, h("tr", {}, ...["part", "c to boat", "c to house", "û·v boat", "û·v house"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...PARTS.map((name, part) => h("tr", {}, h("th", { scope: "row" }, name), ...[0, 1].map((whole) => cell(of(answer.couplings, round, part, whole))),
        ...[0, 1].map((whole) => cell([0, 1, 2, 3].reduce((sum, d) => sum + of(answer.votes, part, whole, d) * of(answer.outputs, round, whole, d), 0))))))));
    const lengths = WHOLES.map((_, whole) => of(answer.lengths, round, whole));
    const best = lengths[0] > lengths[1] ? 0 : 1;
    words.textContent = `Iteration ${round + 1} of ${ROUNDS}: ‖v‖ is ${number(lengths[0])} for “boat” and ${number(lengths[1])} for “house”. The votes for “${WHOLES[best]}” agree more.`;
    Object.assign(words.dataset, { round: round + 1, boat: lengths[0], house: lengths[1] });
  }

  const ask = await asking(null, () => engine.ask("route", { capsules: parts.map(poseOf), weight, iterations: ROUNDS }), (found) => { answer = found; draw(); }, words);
  drawn(draw);
  return [
    h("div", { class: "buttons" }, ...WHOLES.map((whole) => h("button", { type: "button", "data-make": whole, onclick: () => place(whole) }, `Make a ${whole}`)), step),
    h("figure", { class: "panel wide" }, plane, h("figcaption", {}, "Strong outlines: the two parts. Faint ones: where each part expects the boat (blue) and the house (red); darker with a larger coupling.")),
    ...turns.map(({ element }) => element), words, table,
  ];
}

// Two faces that max pooling cannot tell apart, built by the reader.
import { begin, canvasOf, colours, drawn, h, ink } from "./common.js";

export const SIDE = 8;
const WINDOW = 2;
const CELL = 22;
/** Two eyes, a nose and a mouth. */
const FACE = [[1, 1], [1, 6], [3, 3], [4, 4], [6, 2], [6, 3], [6, 4], [6, 5]];

/** Max-pool a square map with windows of 2×2. @param {ArrayLike<number>} map @param {number} side */
export function maxPool(map, side) {
  const half = side / WINDOW;
  return Array.from({ length: half * half }, (_, at) => {
    const top = Math.floor(at / half) * WINDOW * side + (at % half) * WINDOW;
    return Math.max(map[top], map[top + 1], map[top + side], map[top + side + 1]);
  });
}

export async function figure() {
  const first = Array(SIDE * SIDE).fill(0);
  for (const [row, column] of FACE) first[row * SIDE + column] = 1;
  const second = [...first];
  const cells = second.map((_, at) => h("button", { type: "button", class: "cell", "aria-label": `row ${Math.floor(at / SIDE) + 1}, column ${(at % SIDE) + 1}`, onclick: () => { second[at] = 1 - second[at]; draw(); } }));
  const given = canvasOf(SIDE * CELL, SIDE * CELL, "The first face");
  const pooled = ["first", "second"].map((name) => canvasOf(4 * CELL, 4 * CELL, `The ${name} face, pooled`));
  const words = h("p", { class: "verdict", "aria-live": "polite" });

  function scatter() {
    for (let row = 0; row < SIDE; row += WINDOW) for (let column = 0; column < SIDE; column += WINDOW) {
      const places = [0, 1, SIDE, SIDE + 1].map((step) => row * SIDE + column + step);
      const values = places.map((place) => second[place]);
      places.forEach((place, at) => (second[place] = values[(at + 1) % 4]));
    }
    draw();
  }

  function draw() {
    const colour = colours().input;
    ink(begin(given).context, first, { rows: SIDE, columns: SIDE, x: 0, y: 0, width: SIDE * CELL, height: SIDE * CELL, colour });
    cells.forEach((cell, at) => cell.setAttribute("aria-pressed", String(second[at] === 1)));
    const results = [maxPool(first, SIDE), maxPool(second, SIDE)];
    results.forEach((result, at) => ink(begin(pooled[at]).context, result, { rows: 4, columns: 4, x: 0, y: 0, width: 4 * CELL, height: 4 * CELL, colour }));
    const moved = second.filter((value, at) => value !== first[at]).length;
    const same = results[0].every((value, at) => value === results[1][at]);
    words.textContent = moved === 0 ? "Both faces are the same. Change the second one: click its squares."
      : same ? `The faces differ in ${moved} squares, and both pool to exactly the same map. No later layer can tell them apart.`
      : `The faces differ in ${moved} squares, and so do their pooled maps. Move parts only inside their 2×2 windows.`;
    words.dataset.same = String(same && moved > 0);
  }

  drawn(draw);
  return [
    h("div", { class: "panels" },
      h("figure", { class: "panel" }, given, h("figcaption", {}, "a face")),
      h("figure", { class: "panel" }, pooled[0], h("figcaption", {}, "pooled")),
      h("figure", { class: "panel" }, h("div", { class: "cells", role: "group", "aria-label": "The second face" }, ...cells), h("figcaption", {}, "your face: click squares")),
      h("figure", { class: "panel" }, pooled[1], h("figcaption", {}, "pooled"))),
    words,
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: scatter }, "Move every part inside its window"),
      h("button", { type: "button", onclick: () => { second.splice(0, second.length, ...first); draw(); } }, "Start again")),
  ];
}

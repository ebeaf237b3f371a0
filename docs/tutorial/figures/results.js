// The experiments in pictures: every seed of both sides, from the records in results/.
import { h, replace, svg } from "./common.js";

const [WIDE, TALL] = [520, 135];

export async function figure() {
  const questions = await fetch(new URL("../results.json", import.meta.url)).then((response) => response.json());
  const home = h("div", { "aria-live": "polite" });
  const buttons = questions.map(({ text }, at) => h("button", { type: "button", "aria-pressed": "false", onclick: () => choose(at) }, text));

  function choose(at) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === at)));
    const { measured, comparisons } = questions[at];
    replace(home, h("p", {}, `${measured}. Each dot is a training with another seed.`), ...comparisons.map(chart));
  }

  function chart({ where, sides, word, line, better }) {
    const values = sides.flatMap((side) => side.values);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low) * 0.15 || 0.1;
    const toX = (value) => 8 + ((value - low + room) / (high - low + 2 * room)) * (WIDE - 28);
    return h("figure", { class: "panel wide" },
      svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": `${where}: ${sides.map(({ name, values: own, unit }) => `${name} ${own.map((value) => value.toFixed(2)).join(", ")}${unit}`).join("; ")}` },
        ...sides.flatMap(({ name, values: own }, row) => [
          svg("text", { x: 8, y: 20 + 52 * row, class: "label" }, name),
          svg("line", { x1: 8, x2: WIDE - 20, y1: 36 + 52 * row, y2: 36 + 52 * row, class: "axis" }),
          ...own.map((value) => svg("circle", { cx: toX(value), cy: 36 + 52 * row, r: 6, class: `dot d${row}` }))]),
        svg("text", { x: toX(low), y: TALL - 15, class: "label", "text-anchor": "middle" }, `${low.toFixed(2)}${sides[0].unit}`),
        svg("text", { x: toX(high), y: TALL - 15, class: "label", "text-anchor": "middle" }, `${high.toFixed(2)}${sides[0].unit}`)),
      h("figcaption", {}, h("b", {}, `${where}: ${word}. `), `${better === "lower" ? "Left" : "Right"} is better. ${line}`));
  }

  choose(0);
  return [h("div", { class: "buttons stacked", role: "group", "aria-label": "Question" }, ...buttons), home];
}

// The network's answer in words.
/** @import {World} from "./types.ts" */
import { h, number, replace } from "./dom.js";

/**
 * Show the network's answer in words.
 * @param {HTMLElement} home @param {World} world
 */
export function showAnswer(home, world) {
  const trace = world.trace;
  if (!trace) return;
  const names = world.info.class_names;
  const { measure } = world.info;
  const top = measure === "length" ? "longest capsule" : "most active capsule";
  const found = trace.speakers;
  const count = found.length;
  const empty = trace.image.data.every((value) => value === 0);
  const strong = empty ? [] : found.filter((k) => trace.lengths.data[k] >= 0.5);
  const spoken = strong.length
    ? found.map((k, place) => h("span", { class: `said ${strong.includes(k) ? "" : "unsure"} ${count > 1 ? `c${place}` : ""}` }, h("b", {}, names[k]), h("small", {}, number(trace.lengths.data[k], 3))))
    : [h("span", { class: "said unsure" }, h("b", {}, "–"), h("small", {}, empty ? `the board is empty; the ${top} is ${names[found[0]]}, ${number(trace.lengths.data[found[0]], 2)}` : `no ${measure} is above ${number(Math.max(...trace.lengths.data), 2)}`))];
  const control = world.view === "control" && world.control ? Array.from(world.control) : null;
  const best = control ? control.indexOf(Math.max(...control)) : 0;
  replace(
    home,
    h("p", { class: "answer" }, h("span", { class: "who" }, "The capsules see"), ...spoken),
    ...(control ? [h("p", { class: "answer control" }, h("span", { class: "who" }, "The max-pooling CNN"), h("span", { class: "said" }, h("b", {}, names[best]), h("small", {}, number(control[best], 3))))] : []),
  );
}

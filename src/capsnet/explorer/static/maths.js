// Equations in HTML. A symbol has the same colour here as its quantity in every drawing.
import { h } from "./dom.js";

/** @typedef {"input" | "child" | "vote" | "parent" | "reco" | "plain" | "control"} Kind */

/** @type {Record<string, [Kind, string, string?]>} symbol → role, letter, subscript */
const SYMBOLS = {
  x: ["input", "x"],
  patch: ["input", "x"],
  w: ["plain", "w"],
  bias: ["plain", "b"],
  a: ["input", "a"],
  s_i: ["child", "s", "i"],
  u_i: ["child", "u", "i"],
  W: ["plain", "W", "ij"],
  vote: ["vote", "û", "j|i"],
  b_ij: ["plain", "b", "ij"],
  c_ij: ["vote", "c", "ij"],
  s_j: ["parent", "s", "j"],
  v_j: ["parent", "v", "j"],
  v_k: ["parent", "v", "k"],
  recon: ["reco", "x̂"],
};

/** @param {string} name */
export function symbol(name) {
  const [kind, letter, below] = SYMBOLS[name];
  return h("span", { class: `sym ${kind}` }, h("i", {}, letter), below && h("sub", {}, below));
}

/**
 * Render an equation: `{u_i}` becomes a coloured symbol, `[child 0.93]` a coloured number; other text stays.
 * @param {string} text
 */
export function equation(text) {
  return h("p", { class: "equation", role: "math" }, ...pieces(text));
}

/** Render a sentence that contains such symbols. @param {string} text */
export function prose(text) {
  return h("p", {}, ...pieces(text));
}

/** @param {string} text @returns {Array<Node | string>} */
export function pieces(text) {
  return text.split(/(\{[^}]+\}|\[[a-z]+ [^\]]+\]|\*[^*]+\*)/).map((part) => {
    if (part.startsWith("{")) return symbol(part.slice(1, -1));
    if (part.startsWith("*") && part.length > 2) return h("em", {}, part.slice(1, -1));
    const value = /^\[([a-z]+) ([^\]]+)\]$/.exec(part);
    return value ? h("b", { class: `num ${value[1]}` }, value[2]) : part;
  });
}

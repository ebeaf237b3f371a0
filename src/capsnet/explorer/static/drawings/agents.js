// The estate agents: children with votes given by hand, routed by the library.
import { api, latest } from "../api.js";
import { h, number, replace, svg } from "../dom.js";
/** @import {Tensor} from "../types.ts" */

const SIDE = 200;
const REACH = 2.4;
const ROUNDS = 4;
const HOUSES = ["Elm Street 4", "Mill Lane 9"];

/** Each agent's estimates: [size, price] of the first and of the second house, in any unit.
 *  @type {Array<[[number, number], [number, number]]>} */
const START = [
  [[1.5, 1.2], [-1.2, 1.6]],
  [[1.7, 1.0], [0.4, -1.9]],
  [[1.4, 0.9], [-0.3, 1.2]],
  [[1.6, 1.3], [1.9, 0.2]],
  [[1.8, 1.2], [-1.7, -0.2]],
  [[1.5, 1.0], [0.2, 0.4]],
  [[-1.5, 0.6], [1.2, -1.2]],
  [[0.3, -1.6], [1.3, -1.4]],
  [[-0.6, 1.9], [1.1, -1.1]],
];

/** @param {(error: unknown) => void} fail */
export function agentsFigure(fail) {
  const estimates = START.map((agent) => agent.map((house) => [...house]));
  /** @type {{couplings: Tensor, means: Tensor, lengths: Tensor} | null} */
  let answer = null;
  let round = 0;
  let timer = 0;
  const toX = (/** @type {number} */ x) => SIDE / 2 + (x / REACH) * (SIDE / 2);
  const toY = (/** @type {number} */ y) => SIDE / 2 - (y / REACH) * (SIDE / 2);

  const plots = HOUSES.map((name, house) => {
    const believed = svg("path", { class: "believed", d: "M-7 0 H7 M0 -7 V7" });
    const dots = estimates.map((_, agent) => {
      const dot = svg("g", { class: "agent", tabindex: 0, role: "slider", "aria-valuenow": 0, "aria-label": `Agent ${agent + 1} about ${name}; arrow keys change the estimate` }, svg("circle", { r: 6 }), svg("text", {}, agent + 1));
      dot.addEventListener("pointerdown", (event) => grab(/** @type {PointerEvent} */ (event), dot, agent, house));
      dot.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[/** @type {KeyboardEvent} */ (event).key];
        if (!step) return;
        event.preventDefault();
        say(agent, house, estimates[agent][house][0] + step[0], estimates[agent][house][1] + step[1]);
      });
      return dot;
    });
    const plot = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "agents-plot", role: "group", "aria-label": name },
      svg("path", { class: "axis", d: `M0 ${SIDE / 2} H${SIDE} M${SIDE / 2} 0 V${SIDE}` }), ...dots, believed);
    const caption = h("figcaption", {});
    return { name, plot, dots, believed, caption };
  });
  const play = h("button", { type: "button", id: "agents-play", onclick: run }, "Play");
  const label = h("output", { "aria-live": "polite" });
  const slider = /** @type {HTMLInputElement} */ (h("input", { type: "range", min: 1, max: ROUNDS, step: 1, value: 1, "aria-label": "Round of routing", oninput: () => { stop(); round = slider.valueAsNumber - 1; draw(); } }));
  const element = h("div", { class: "agents" }, h("div", { class: "pair" }, ...plots.map(({ plot, caption }) => h("figure", {}, plot, caption))), h("div", { class: "row" }, play, slider, label));
  const ask = latest(() => api.agents({ estimates, iterations: ROUNDS }), (found) => { answer = found; draw(); }, fail);
  ask(null);

  /** @param {number} agent @param {number} house @param {number} x @param {number} y */
  function say(agent, house, x, y) {
    const keep = (/** @type {number} */ value) => Math.min(REACH, Math.max(-REACH, value));
    estimates[agent][house] = [keep(x), keep(y)];
    ask(null);
  }

  /** @param {PointerEvent} down @param {SVGElement} dot @param {number} agent @param {number} house */
  function grab(down, dot, agent, house) {
    down.preventDefault();
    dot.setPointerCapture(down.pointerId);
    const move = (/** @type {Event} */ event) => {
      const { clientX, clientY } = /** @type {PointerEvent} */ (event);
      const box = plots[house].plot.getBoundingClientRect();
      say(agent, house, ((clientX - box.left) / box.width - 0.5) * 2 * REACH, (0.5 - (clientY - box.top) / box.height) * 2 * REACH);
    };
    dot.addEventListener("pointermove", move);
    const end = () => {
      dot.removeEventListener("pointermove", move);
      dot.removeEventListener("pointerup", end);
      dot.removeEventListener("pointercancel", end);
    };
    dot.addEventListener("pointerup", end);
    dot.addEventListener("pointercancel", end);
  }

  function run() {
    stop();
    round = 0;
    draw();
    timer = window.setInterval(() => {
      if (round >= ROUNDS - 1) stop();
      else {
        round += 1;
        draw();
      }
    }, 900);
  }

  function stop() {
    window.clearInterval(timer);
  }

  function draw() {
    if (!answer) return;
    slider.value = String(round + 1);
    label.textContent = `round ${round + 1}`;
    const houses = HOUSES.length;
    const { couplings, means, lengths } = answer;
    plots.forEach(({ name, dots, believed, caption }, house) => {
      dots.forEach((dot, agent) => {
        const heard = couplings.data[(round * dots.length + agent) * houses + house];
        const [x, y] = estimates[agent][house];
        dot.setAttribute("transform", `translate(${toX(x)} ${toY(y)})`);
        dot.style.setProperty("--heard", String(heard));
        dot.querySelector("circle")?.setAttribute("r", String(4 + 9 * heard));
        dot.setAttribute("aria-valuetext", `size ${number(x, 1)}, price ${number(y, 1)}, weight ${number(heard, 2)}`);
      });
      const at = (round * houses + house) * 2;
      believed.setAttribute("transform", `translate(${toX(means.data[at])} ${toY(means.data[at + 1])})`);
      replace(caption, name, h("br"), h("b", { class: "num parent" }, `‖v‖ = ${number(lengths.data[round * houses + house], 2)}`));
    });
  }

  return { element, close: stop };
}

// Texts and states of the tour. Each step changes the same state as the page's controls.
/** @import {State, World, Digit} from "./types.ts" */
import { agentsFigure } from "./drawings/agents.js";
import { h } from "./dom.js";
import { prose } from "./maths.js";
import { STILL, change, current, exampleDigit, emptyDigit } from "./state.js";

/** @typedef {{title: string, target: string, state: (world: World) => Partial<State>,
 *             body: (fail: (error: unknown) => void) => {nodes: Node[], close?: () => void}}} Step */

/** Return a test digit of one class, or any test digit if the class has none. @param {World} world @param {number} k @param {number} [which] @returns {Digit} */
function digit(world, k, which = 0) {
  const own = world.examples.labels.flatMap((label, index) => (label[0] === k ? [index] : []));
  return world.examples.labels.length ? exampleDigit(own[Math.min(which, own.length - 1)] ?? 0) : emptyDigit();
}

/** @param {World} world @param {number} k @param {Partial<typeof STILL>} [motion] */
function one(world, k, motion = {}) {
  const chosen = digit(world, k);
  return { digits: [{ ...chosen, motion: { ...STILL, ...motion } }], active: 0, focus: null, pose: null, sheet: false };
}

/** @param {...string} texts */
const text = (...texts) => ({ nodes: texts.map(prose) });

/** Return a button that moves a slider of the board back and forth once. @param {string} label @param {"rotation" | "shear" | "shift_x"} name @param {number} reach */
function swing(label, name, reach) {
  let running = 0;
  const button = h("button", {
    type: "button",
    onclick: () => {
      window.clearInterval(running);
      let time = 0;
      running = window.setInterval(() => {
        time += 1;
        const world = current();
        const value = time >= 40 ? 0 : reach * Math.sin((time / 40) * 2 * Math.PI);
        change({ digits: world.digits.map((one, index) => (index === 0 ? { ...one, motion: { ...one.motion, [name]: Math.round(value * 100) / 100 } } : one)) });
        if (time >= 40) window.clearInterval(running);
      }, 70);
    },
  }, label);
  return { button, close: () => window.clearInterval(running) };
}

/** @type {Step[]} */
export const STEPS = [
  {
    title: "A network that keeps positions",
    target: "#overview",
    state: (world) => ({ ...one(world, 4), view: "input", tool: "draw" }),
    body: () => text(
      "A digit goes in on the left. The answer and a reconstruction of the digit come out on the right. Every picture shows values that the network computed for this image.",
      "The tour takes five minutes and uses the page's own controls. You can use them yourself at any time, and leave the tour at any step.",
    ),
  },
  {
    title: "What max pooling loses",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "control" }),
    body: () => text(
      "Most image networks use pooling: they keep only the largest number of each small window. Small shifts then change little, but the exact positions are lost.",
      "Look at the first two maps. The second has the same numbers in other places. After pooling the two are *the same*. A network with pooling can accept a face whose mouth is where an eye should be.",
    ),
  },
  {
    title: "Capsules keep positions and more",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "primary" }),
    body: () => {
      const { button, close } = swing("Turn the digit back and forth", "rotation", 35);
      return { nodes: [...text("A capsule is a vector of a few numbers, drawn as an arrow {u_i}. Its length says whether a piece of a stroke is present. Its direction describes the piece: its angle, thickness and position.", "There is no pooling. Turn the digit: the arrows turn with it.").nodes, button], close };
    },
  },
  {
    title: "Squash: a length between 0 and 1",
    target: ".narrow",
    state: (world) => ({ ...one(world, 4), view: "primary" }),
    body: () => text(
      "The length stands for a probability, so it must not exceed 1. Squash shortens an arrow and keeps its direction: short arrows almost vanish, and long arrows get a length near 1.",
      "The dot on the curve is the capsule marked in the picture. Click other capsules: a few are long, most are very short.",
    ),
  },
  {
    title: "Nine estate agents",
    target: "#tour",
    state: (world) => ({ ...one(world, 4), view: "routing", at: 1 }),
    body: (fail) => {
      const figure = agentsFigure(fail);
      return {
        nodes: [...text("Two houses are for sale, and nine agents estimate each house: its size (to the right) and its price (up). At first both houses give every agent the same weight.", "Six agents agree about the first house, and three agree about the second. The other estimates are guesses. Press Play: in each round a house gives more weight to the agents near its weighted mean. This is routing, with the network's own equations. Drag an estimate away and watch its weight fall.").nodes, figure.element],
        close: figure.close,
      };
    },
  },
  {
    title: "A thousand agents, ten houses",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "routing", at: 1, iterations: 3 }),
    body: () => ({
      nodes: [
        ...text("The primary capsules are the agents, and the ten digits are the houses. Each dot is one capsule's vote {vote}: its prediction of the digit's pose, if the digit is a “4”.").nodes,
        h("button", { type: "button", onclick: () => document.getElementById("play")?.click() }, "Play the routing"),
        ...text("Dots far to the right agree with the result {v_j} and grow. The others fade. The dashed ellipse shows where the weighted votes are.").nodes,
      ],
    }),
  },
  {
    title: "The class in second place",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "routing", iterations: 3, at: 3, focus: world.trace?.ranking[1] ?? 9 }),
    body: () => text(
      "The same children also vote for the class in second place. Their votes do not agree, so the sum {s_j} stays short and squash makes it shorter. The couplings move to the class whose votes agree.",
      "Use the arrow buttons to go back to iteration 1 and forward again. The couplings below fall.",
    ),
  },
  {
    title: "Sixteen numbers with a meaning",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "classes", at: 3 }),
    body: () => text(
      "The sixteen numbers of the winning capsule describe how the digit is written. Move a slider: one number makes the digit lean, another makes it thicker or moves it. The words beside the sliders were measured on test digits. A word appears only where the effect is clear.",
      "“Sheet of all numbers” shows the effect of every number at once.",
    ),
  },
  {
    title: "Two digits at once",
    target: "#detail",
    state: (world) => {
      const [first, second] = [digit(world, 8), digit(world, 0)];
      return { digits: [{ ...first, motion: { ...STILL, shift_x: -4 } }, { ...second, motion: { ...STILL, shift_x: 4 } }], active: 1, focus: null, pose: null, view: "reconstruction" };
    },
    body: () => ({
      nodes: [
        ...text(
          "The lengths do not sum to 1, so two capsules can be long at the same time. Each draws its own digit, in its own colour, although the digits overlap.",
          "Select the eraser, erase the second digit, and watch its capsule become short. (The bundled network was trained on single digits only.)",
        ).nodes,
        h("button", { type: "button", onclick: () => change({ tool: "erase" }) }, "Select the eraser"),
      ],
    }),
  },
  {
    title: "Does routing matter?",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "ablation" }),
    body: () => text(
      "These tables compare the network with different numbers of iterations, for this image and on the test set. With one iteration the couplings are uniform, so agreement plays no role.",
      "Often the answer stays the same and only the lengths change. Draw your own digits and compare. To share what you see, send the link of this page: it contains everything.",
    ),
  },
];

// What the tour says and sets. Each step drives the same state that the visitor's own controls change.
/** @import {State, World, Digit} from "./types.ts" */
import { agentsFigure } from "./drawings/agents.js";
import { h } from "./dom.js";
import { prose } from "./maths.js";
import { STILL, change, current, exampleDigit, emptyDigit } from "./state.js";

/** @typedef {{title: string, target: string, state: (world: World) => Partial<State>,
 *             body: (fail: (error: unknown) => void) => {nodes: Node[], close?: () => void}}} Step */

/** A test digit of one class, or the first that there is. @param {World} world @param {number} k @param {number} [which] @returns {Digit} */
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

/** A button that moves a slider of the board there and back. @param {string} label @param {"rotation" | "shear" | "shift_x"} name @param {number} reach */
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
    title: "A network that says where",
    target: "#overview",
    state: (world) => ({ ...one(world, 4), view: "input", tool: "draw" }),
    body: () => text(
      "A digit goes in on the left; the answer, and a drawing of what was seen, come out on the right. Every picture here is this image's own numbers.",
      "The tour takes five minutes and uses the controls you see. You may touch anything meanwhile, and leave whenever you like.",
    ),
  },
  {
    title: "What max pooling throws away",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "control" }),
    body: () => text(
      "Most networks for images pool: of each small window only the largest number survives. That makes them indifferent to small shifts, and it is also a way of forgetting.",
      "Look at the first two maps. The second has the same numbers in other places; after pooling the two are *the same*. A face with its mouth where an eye should be can look fine to a network that pools.",
    ),
  },
  {
    title: "Capsules keep the place, and more",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "primary" }),
    body: () => {
      const { button, close } = swing("Turn the digit to and fro", "rotation", 35);
      return { nodes: [...text("A capsule is a handful of numbers, an arrow {u_i}. Its length says whether a piece of stroke is there. Its direction says how: turned, thick, where.", "Nothing is pooled. Turn the digit, and watch arrows turn instead of staying the same.").nodes, button], close };
    },
  },
  {
    title: "Squash: a length between 0 and 1",
    target: ".narrow",
    state: (world) => ({ ...one(world, 4), view: "primary" }),
    body: () => text(
      "If length is to say “whether”, it must not exceed 1. Squash shortens an arrow and leaves its direction alone: short ones almost vanish, long ones come close to 1.",
      "The dot on the curve is the capsule marked in the picture. Click others: few say much, most say almost nothing.",
    ),
  },
  {
    title: "Nine estate agents",
    target: "#tour",
    state: (world) => ({ ...one(world, 4), view: "routing", at: 1 }),
    body: (fail) => {
      const figure = agentsFigure(fail);
      return {
        nodes: [...text("Whom to believe? Two houses are for sale, and nine agents say what each house is: its size, across, and its price, up. Every agent speaks about both houses, and is heard by both alike.", "Six agree about the first house and three about the second; elsewhere they guess. Press Play: each house listens more to those that agree with what it has heard. That is routing, and these are the network's own equations. Drag an agent's word away and see who stops listening.").nodes, figure.element],
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
        ...text("The primary capsules are the agents, the ten digits are the houses. Each dot is one capsule's word {vote} on what the digit is like, if it is a “4”.").nodes,
        h("button", { type: "button", onclick: () => document.getElementById("play")?.click() }, "Play the routing"),
        ...text("Dots far to the right agree with the verdict {v_j} and grow; the rest fade. The dashed ring is where the weighted votes lie.").nodes,
      ],
    }),
  },
  {
    title: "Rejected",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "routing", iterations: 3, at: 3, focus: world.trace?.ranking[1] ?? 9 }),
    body: () => text(
      "The same children also vote for the runner-up. Their words do not agree: the sum {s_j} stays short, squash makes it shorter, and the children turn to the class where they are believed.",
      "Step back to iteration 1 with the arrows and forward again, and watch the couplings below fall.",
    ),
  },
  {
    title: "Sixteen numbers that mean something",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "classes", at: 3 }),
    body: () => text(
      "The winner's sixteen numbers hold how the digit is written. Move a slider: one makes it lean, another thickens or shifts it. The words beside the sliders were measured on test digits, and stand only where an effect is clear.",
      "“Sheet of all numbers” shows all of them at once.",
    ),
  },
  {
    title: "Two at once",
    target: "#detail",
    state: (world) => {
      const [first, second] = [digit(world, 8), digit(world, 0)];
      return { digits: [{ ...first, motion: { ...STILL, shift_x: -4 } }, { ...second, motion: { ...STILL, shift_x: 4 } }], active: 1, focus: null, pose: null, view: "reconstruction" };
    },
    body: () => ({
      nodes: [
        ...text(
          "Lengths are not shares: two capsules can be long together. Each draws its own digit, in its own colour, though they share ink.",
          "Take the eraser, rub the second digit out, and watch its capsule let go. (This network has only ever seen single digits, unless you trained it on pairs.)",
        ).nodes,
        h("button", { type: "button", onclick: () => change({ tool: "erase" }) }, "Take the eraser"),
      ],
    }),
  },
  {
    title: "And does it matter?",
    target: "#detail",
    state: (world) => ({ ...one(world, 4), view: "ablation" }),
    body: () => text(
      "An honest question. Here is the same network with uniform couplings, so without agreement, for this image and over the test set.",
      "Often the answer stays the same and only the certainty changes. Judge for yourself, draw your own digits, and send somebody the link: it holds everything you see.",
    ),
  },
];

// All shared state, including the server's answers: one object, changed in one place.
/** @import {World, Motion, Digit, Trace} from "./types.ts" */
import { finished, started } from "./busy.js";

/** @type {World} */
let world;

/** @type {Set<keyof World>} */
let changed = new Set();

/** @type {Array<(world: World, changed: Set<keyof World>) => void>} */
const listeners = [];

/** @param {World} start */
export function begin(start) {
  world = start;
}

/** @returns {Readonly<World>} */
export function current() {
  return world;
}

/**
 * Change the world. Listeners get all changes of a frame in one call.
 * @param {Partial<World>} changes
 */
export function change(changes) {
  if (changed.size === 0) {
    started();
    requestAnimationFrame(tell);
  }
  Object.assign(world, changes);
  for (const name of Object.keys(changes)) changed.add(/** @type {keyof World} */ (name));
}

/** Call the listeners now instead of in the next frame. */
export function tell() {
  if (changed.size === 0) return;
  const what = changed;
  changed = new Set();
  try {
    for (const listener of listeners) listener(world, what);
  } finally {
    finished();
  }
}

/** @param {(world: World, changed: Set<keyof World>) => void} listener */
export function listen(listener) {
  listeners.push(listener);
}

/** @type {Readonly<Motion>} */
export const STILL = Object.freeze({ rotation: 0, shear: 0, scale_x: 1, scale_y: 1, shift_x: 0, shift_y: 0 });

/** @param {Motion} motion */
export function isStill(motion) {
  return /** @type {Array<keyof Motion>} */ (Object.keys(STILL)).every((name) => motion[name] === STILL[name]);
}

/**
 * Change the active digit.
 * @param {Partial<Digit>} changes
 */
export function changeDigit(changes) {
  const digits = world.digits.map((digit, index) => (index === world.active ? { ...digit, ...changes } : digit));
  change({ digits, pose: null });
}

/** @param {number} index number of a test digit
 *  @returns {Digit} */
export function exampleDigit(index) {
  const { images } = world.examples;
  const size = images.shape.slice(1).reduce((a, b) => a * b, 1);
  const pixels = Uint8Array.from(images.data.subarray(index * size, (index + 1) * size));
  return { example: index, pixels, motion: { ...STILL } };
}

/** @returns {Digit} */
export function emptyDigit() {
  const size = world.info.geometry.image_shape.reduce((a, b) => a * b, 1);
  return { example: null, pixels: new Uint8Array(size), motion: { ...STILL } };
}

/** Return the class in focus: the selected one, else the answer. */
export function focusOf(/** @type {Readonly<World>} */ world) {
  return world.focus ?? world.trace?.ranking[0] ?? 0;
}

/** Return the iteration shown, counted from 0, within the current trace. */
export function shownStep(/** @type {Readonly<World>} */ world) {
  const steps = world.trace ? world.trace.couplings.shape[0] : 1;
  return Math.min(world.at, steps) - 1;
}

/**
 * Return the child, among some, with the largest final coupling to a class.
 * @param {Trace} trace @param {number} k @param {(child: number) => boolean} [among]
 */
export function mostHeard(trace, k, among = () => true) {
  const [steps, children, classes] = trace.couplings.shape;
  const from = (steps - 1) * children * classes + k;
  let best = -1;
  for (let i = 0; i < children; i++) {
    if (among(i) && (best < 0 || trace.couplings.data[from + i * classes] > trace.couplings.data[from + best * classes])) best = i;
  }
  return best;
}

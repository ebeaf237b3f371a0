// The state in the address bar: a link reproduces it exactly, including every drawn pixel.
/** @import {World, State, Digit, Motion, View} from "./types.ts" */
import { tidied } from "./handles.js";
import { STILL, emptyDigit, exampleDigit, isStill } from "./state.js";

/** @type {readonly View[]} */
export const VIEWS = ["input", "conv1", "primary", "routing", "classes", "reconstruction", "control", "ablation"];
const TOOLS = /** @type {const} */ (["draw", "erase", "move"]);
const PARAMETERS = /** @type {const} */ (["rotation", "shift_x", "shift_y", "scale", "shear"]);
const MOTION = /** @type {Array<keyof Motion>} */ (Object.keys(STILL));

/** Pack pixels with run lengths for zeros, which are most of a drawing: 0, then the count.
 *  @param {Uint8Array} pixels */
export function pack(pixels) {
  let bytes = "";
  for (let i = 0; i < pixels.length; ) {
    if (pixels[i] !== 0) {
      bytes += String.fromCharCode(pixels[i++]);
      continue;
    }
    let run = 0;
    while (i < pixels.length && pixels[i] === 0 && run < 255) (i++, run++);
    bytes += String.fromCharCode(0, run);
  }
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text @param {Uint8Array} into @returns {boolean} whether the text held a complete picture */
export function unpackPixels(text, into) {
  let bytes;
  try {
    bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return false;
  }
  let place = 0;
  for (let i = 0; i < bytes.length; i++) {
    const value = bytes.charCodeAt(i);
    if (value === 0) place += bytes.charCodeAt(++i) || 0;
    else if (place < into.length) into[place++] = value;
    else return false;
  }
  return place === into.length;
}

/** @param {Digit} digit */
function digitText(digit) {
  const what = digit.example === null ? `p${pack(digit.pixels)}` : `e${digit.example}`;
  if (isStill(digit.motion)) return what;
  return `${what}~${MOTION.map((name) => +digit.motion[name].toFixed(4)).join("~")}`;
}

/** @param {string} text @param {World} world @returns {Digit | null} */
function digitFrom(text, world) {
  const [what, ...numbers] = text.split("~");
  let digit;
  if (what.startsWith("e")) {
    const index = Number(what.slice(1));
    if (!Number.isInteger(index) || index < 0 || index >= world.examples.labels.length) return null;
    digit = exampleDigit(index);
  } else {
    digit = emptyDigit();
    if (!unpackPixels(what.slice(1), digit.pixels)) return null;
  }
  if (numbers.length === MOTION.length && numbers.every((value) => Number.isFinite(Number(value)))) {
    MOTION.forEach((name, index) => (digit.motion[name] = Number(numbers[index])));
    digit.motion = tidied(digit.motion);
  }
  return digit;
}

/** @param {Readonly<World>} world */
export function toHash(world) {
  const parts = new URLSearchParams();
  parts.set("m", world.info.run);
  parts.set("v", world.view);
  world.digits.forEach((digit, index) => parts.set(index === 0 ? "a" : "b", digitText(digit)));
  if (world.active) parts.set("on", String(world.active));
  if (world.tool !== "draw") parts.set("tool", world.tool);
  parts.set("r", String(world.iterations));
  parts.set("t", String(world.at));
  if (world.focus !== null) parts.set("f", String(world.focus));
  if (world.child >= 0) parts.set("i", String(world.child));
  const { channel, row, column } = world.spot;
  parts.set("c", [channel, row, column].join("."));
  if (world.pose) parts.set("pose", world.pose.map((value) => +value.toFixed(4)).join("~"));
  if (world.sheet) parts.set("sheet", "1");
  if (world.parameter !== "rotation") parts.set("p", world.parameter);
  if (world.tour !== null) parts.set("tour", String(world.tour));
  return `#${parts}`;
}

/** @param {string} hash @returns {string | null} */
export function runOf(hash) {
  return new URLSearchParams(hash.slice(1)).get("m");
}

/**
 * Read the state from a link; values that do not fit the model are ignored.
 * @param {string} hash
 * @param {World} world
 * @returns {Partial<State>}
 */
export function fromHash(hash, world) {
  const parts = new URLSearchParams(hash.slice(1));
  const { geometry, class_names, max_iterations } = world.info;
  /** @type {Partial<State>} */
  const state = {};
  /** @param {string} name @param {number} low @param {number} high */
  const whole = (name, low, high) => {
    const value = Number(parts.get(name) ?? NaN);
    return Number.isInteger(value) && value >= low && value <= high ? value : undefined;
  };
  const digits = ["a", "b"].flatMap((name) => {
    const text = parts.get(name);
    const digit = text === null ? null : digitFrom(text, world);
    return digit ? [digit] : [];
  });
  if (digits.length) state.digits = digits;
  state.active = Math.min(whole("on", 0, 1) ?? 0, Math.max(digits.length - 1, 0));
  const view = VIEWS.find((one) => one === parts.get("v"));
  if (view) state.view = view;
  state.tool = TOOLS.find((one) => one === parts.get("tool")) ?? "draw";
  state.parameter = PARAMETERS.find((one) => one === parts.get("p")) ?? "rotation";
  state.iterations = whole("r", 1, max_iterations) ?? Math.min(geometry.iterations, max_iterations);
  state.at = whole("t", 1, state.iterations) ?? state.iterations;
  state.focus = whole("f", 0, class_names.length - 1) ?? null;
  state.child = whole("i", 0, geometry.in_caps - 1) ?? -1;
  const spot = (parts.get("c") ?? "").split(".").map(Number);
  const limits = [geometry.stem_channels, geometry.maps[0], geometry.maps[1]];
  if (spot.length === 3 && spot.every((value, index) => Number.isInteger(value) && value >= 0 && value < limits[index])) {
    state.spot = { channel: spot[0], row: spot[1], column: spot[2] };
  }
  const pose = parts.get("pose")?.split("~").map(Number);
  state.pose = pose?.length === geometry.class_dim && pose.every((value) => Math.abs(value) <= 100) ? pose : null;
  state.sheet = parts.get("sheet") === "1";
  state.tour = whole("tour", 0, 99) ?? null;
  return state;
}

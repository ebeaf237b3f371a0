// Handles on a digit's frame: move, turn, scale, shear. The server sends the frame's corners. Pointer movements
// and arrow keys change the transform's numbers.
/** @import {Motion, World} from "./types.ts" */
import { number, svg } from "./dom.js";
import { changeDigit } from "./state.js";

/** @typedef {{x: number, y: number}} Point */

/** Clamp a motion to the range that a link can store. @param {number} value @param {number} low @param {number} high */
const tidy = (value, low, high) => Math.round(Math.min(high, Math.max(low, value)) * 1000) / 1000;

/** @param {Motion} motion @returns {Motion} */
export function tidied(motion) {
  const turned = ((motion.rotation + 540) % 360) - 180;
  return {
    rotation: tidy(turned === -180 && motion.rotation > 0 ? 180 : turned, -180, 180),
    shear: tidy(motion.shear, -2, 2),
    scale_x: tidy(motion.scale_x, 0.2, 4),
    scale_y: tidy(motion.scale_y, 0.2, 4),
    shift_x: tidy(motion.shift_x, -60, 60),
    shift_y: tidy(motion.shift_y, -60, 60),
  };
}

/** @typedef {"move" | "turn" | "scale" | "shear"} Action */

/** @type {Record<Action, {label: string, keys: (m: Motion, x: number, y: number) => Motion, value: (m: Motion) => string}>} */
const ACTIONS = {
  move: {
    label: "Move",
    keys: (m, x, y) => ({ ...m, shift_x: m.shift_x + 0.5 * x, shift_y: m.shift_y + 0.5 * y }),
    value: (m) => `${number(m.shift_x, 1)} right, ${number(m.shift_y, 1)} down`,
  },
  turn: {
    label: "Turn",
    keys: (m, x, y) => ({ ...m, rotation: m.rotation - 3 * (x + y) }),
    value: (m) => `${number(m.rotation, 0)} degrees`,
  },
  scale: {
    label: "Scale",
    keys: (m, x, y) => ({ ...m, scale_x: m.scale_x + 0.03 * (x - y), scale_y: m.scale_y + 0.03 * (x - y) }),
    value: (m) => `times ${number(m.scale_x, 2)}`,
  },
  shear: {
    label: "Shear",
    keys: (m, x) => ({ ...m, shear: m.shear + 0.04 * x }),
    value: (m) => number(m.shear, 2),
  },
};

/**
 * @param {number} side of the board in its own units
 * @param {(point: Point) => Point} toPixels from the screen to the image
 */
export function handles(side, toPixels) {
  const frame = svg("polygon", { class: "frame" });
  const stem = svg("line", { class: "frame" });
  const area = grip("move", svg("polygon", { class: "area" }));
  const turn = grip("turn", svg("circle", { r: 8 }));
  const corner = grip("scale", svg("rect", { x: -7, y: -7, width: 14, height: 14, rx: 3 }));
  const shear = grip("shear", svg("path", { d: "M-11 0 L0 -7 L11 0 L0 7 Z" }));
  const element = svg(
    "svg",
    { class: "handles", viewBox: `0 0 ${side} ${side}`, role: "group", "aria-label": "Handles: drag, or focus one and use the arrow keys" },
    frame, stem, area, turn, corner, shear,
  );
  /** @type {World | null} */
  let shown = null;

  /** @param {Action} action @param {SVGElement} shape */
  function grip(action, shape) {
    const group = svg(
      "g",
      { class: `grip ${action}`, tabindex: 0, role: "slider", "aria-label": ACTIONS[action].label, "aria-valuenow": 0 },
      svg("title", {}, `${ACTIONS[action].label} (drag, or arrow keys)`),
      shape,
    );
    group.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
        /** @type {KeyboardEvent} */ (event).key
      ];
      if (!step || !shown) return;
      event.preventDefault();
      changeDigit({ motion: tidied(ACTIONS[action].keys(shown.digits[shown.active].motion, step[0], step[1])) });
    });
    group.addEventListener("pointerdown", (event) => drag(action, group, /** @type {PointerEvent} */ (event)));
    return group;
  }

  /** @param {Action} action @param {SVGElement} group @param {PointerEvent} down */
  function drag(action, group, down) {
    if (!shown) return;
    down.preventDefault();
    group.focus({ preventScroll: true });
    group.setPointerCapture(down.pointerId);
    const start = { ...shown.digits[shown.active].motion };
    const [, height, width] = shown.info.geometry.image_shape;
    const from = toPixels({ x: down.clientX, y: down.clientY });
    const middle = { x: width / 2 + start.shift_x, y: height / 2 + start.shift_y };
    const move = (/** @type {Event} */ event) => {
      const pointer = /** @type {PointerEvent} */ (event);
      const to = toPixels({ x: pointer.clientX, y: pointer.clientY });
      changeDigit({ motion: tidied(follow(action, start, from, to, middle, height)) });
    };
    const end = () => {
      group.removeEventListener("pointermove", move);
      group.removeEventListener("pointerup", end);
      group.removeEventListener("pointercancel", end);
    };
    group.addEventListener("pointermove", move);
    group.addEventListener("pointerup", end);
    group.addEventListener("pointercancel", end);
  }

  return {
    element,
    /** @param {World} world @param {(x: number, y: number) => [number, number]} toBoard */
    update(world, toBoard) {
      shown = world;
      const motion = world.digits[world.active].motion;
      for (const [group, action] of /** @type {Array<[SVGElement, Action]>} */ ([[area, "move"], [turn, "turn"], [corner, "scale"], [shear, "shear"]])) {
        group.setAttribute("aria-valuetext", ACTIONS[action].value(motion));
      }
      const outlines = world.trace?.outlines;
      if (!outlines || world.active >= outlines.shape[0]) return;
      // Handles of a digit outside the board stay inside it.
      const within = (/** @type {number} */ at) => Math.min(side - 12, Math.max(12, at));
      const corners = [0, 1, 2, 3].map((k) => {
        const at = world.active * 8 + 2 * k;
        return toBoard(outlines.data[at], outlines.data[at + 1]);
      });
      const points = corners.map((point) => point.join(",")).join(" ");
      frame.setAttribute("points", points);
      area.querySelector("polygon")?.setAttribute("points", points);
      const top = between(corners[0], corners[1]);
      const bottom = between(corners[2], corners[3]);
      const length = Math.hypot(top[0] - bottom[0], top[1] - bottom[1]) || 1;
      const out = [top[0] + (26 * (top[0] - bottom[0])) / length, top[1] + (26 * (top[1] - bottom[1])) / length];
      stem.setAttribute("x1", String(top[0]));
      stem.setAttribute("y1", String(top[1]));
      stem.setAttribute("x2", String(out[0]));
      stem.setAttribute("y2", String(out[1]));
      turn.setAttribute("transform", `translate(${out.map(within).join(" ")})`);
      corner.setAttribute("transform", `translate(${corners[2].map(within).join(" ")}) rotate(${-motion.rotation})`);
      shear.setAttribute("transform", `translate(${bottom.map(within).join(" ")}) rotate(${-motion.rotation})`);
    },
  };
}

/** @param {[number, number]} a @param {[number, number]} b */
const between = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

/**
 * Return the transform after the pointer moved from one pixel to another.
 * @param {Action} action @param {Motion} start @param {Point} from @param {Point} to @param {Point} middle @param {number} height
 * @returns {Motion}
 */
function follow(action, start, from, to, middle, height) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  if (action === "move") return { ...start, shift_x: start.shift_x + dx, shift_y: start.shift_y + dy };
  if (action === "turn") {
    const angle = (/** @type {Point} */ p) => Math.atan2(p.y - middle.y, p.x - middle.x);
    return { ...start, rotation: start.rotation - ((angle(to) - angle(from)) * 180) / Math.PI };
  }
  if (action === "scale") {
    const far = (/** @type {Point} */ p) => Math.hypot(p.x - middle.x, p.y - middle.y);
    const factor = far(to) / Math.max(far(from), 1e-6);
    return { ...start, scale_x: start.scale_x * factor, scale_y: start.scale_y * factor };
  }
  const turned = (start.rotation * Math.PI) / 180;
  const along = dx * Math.cos(turned) - dy * Math.sin(turned);
  return { ...start, shear: start.shear + along / ((height / 2) * start.scale_y) };
}

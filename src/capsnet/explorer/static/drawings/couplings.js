// The children's couplings: each child over the iterations, and all children in one iteration.
/** @import {World} from "../types.ts" */
import { number } from "../dom.js";
import { classColour, colours, rgba } from "../paint.js";
import { focusOf } from "../state.js";

/**
 * Draw each child's coupling with the class in focus as a line over the iterations; long capsules are darker.
 * @param {CanvasRenderingContext2D} context @param {World} world @param {number} width @param {number} height @param {number} step
 */
export function drawFlow(context, world, width, height, step) {
  const trace = world.trace;
  if (!trace) return;
  const palette = colours();
  const focus = focusOf(world);
  const [steps, children, classes] = trace.couplings.shape;
  const [left, right, top, bottom] = [42, 12, 10, 24];
  const most = roof(trace, focus);
  const toX = (/** @type {number} */ t) => left + (steps > 1 ? t / (steps - 1) : 0.5) * (width - left - right);
  const toY = (/** @type {number} */ c) => height - bottom - (c / most) * (height - top - bottom);
  context.strokeStyle = rgba(palette.line);
  context.fillStyle = rgba(palette.quiet);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const c of [0, most / 2, most]) {
    context.beginPath();
    context.moveTo(left, toY(c));
    context.lineTo(width - right, toY(c));
    context.stroke();
    context.fillText(number(c, 2), left - 6, toY(c));
  }
  context.textAlign = "center";
  for (let t = 0; t < steps; t++) context.fillText(String(t + 1), toX(t), height - 9);
  const data = trace.couplings.data;
  const lineOf = (/** @type {number} */ i) => {
    context.beginPath();
    if (steps === 1) context.moveTo(left, toY(data[i * classes + focus]));
    for (let t = 0; t < steps; t++) context.lineTo(steps > 1 ? toX(t) : width - right, toY(data[(t * children + i) * classes + focus]));
    context.stroke();
  };
  for (let i = 0; i < children; i++) {
    context.strokeStyle = rgba(palette.vote, 0.03 + 0.35 * trace.presence.data[i] ** 2);
    lineOf(i);
  }
  context.lineWidth = 2;
  if (steps > 1) {
    context.strokeStyle = rgba(palette.parent, 0.8);
    context.beginPath();
    context.moveTo(toX(step), top - 4);
    context.lineTo(toX(step), height - bottom + 4);
    context.stroke();
  }
  context.strokeStyle = rgba(palette.child);
  lineOf(world.child);
  context.lineWidth = 1;
}

/**
 * Draw one column per child: its class with the largest final coupling, and the change of this coupling from the
 * uniform start (nothing in the first iteration). The columns are sorted by this class and keep their order.
 * @param {CanvasRenderingContext2D} context @param {World} world @param {number} width @param {number} height @param {number} step
 */
export function drawStrip(context, world, width, height, step) {
  const trace = world.trace;
  if (!trace) return;
  const palette = colours();
  const [steps, children, classes] = trace.couplings.shape;
  const data = trace.couplings.data;
  const { order, winners, most } = preferences(trace);
  const low = Math.min(steps - 1, Math.floor(step));
  const high = Math.min(steps - 1, low + 1);
  const part = step - low;
  const left = 42;
  const slot = (width - left) / children;
  const base = height - 20;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.fillStyle = rgba(palette.quiet);
  context.fillText(`+${number(most, 2)}`, left - 6, 8);
  context.fillText("0", left - 6, base);
  context.fillStyle = rgba(palette.line);
  context.fillRect(left, base, width - left, 1);
  const uniform = evenShare(trace);
  let from = 0;
  order.forEach((i, place) => {
    const k = winners[i];
    const a = data[(low * children + i) * classes + k];
    const b = data[(high * children + i) * classes + k];
    const tall = Math.max(0, (a + (b - a) * part - uniform) / most) * (base - 6);
    context.fillStyle = rgba(classColour(k), 0.35 + 0.65 * Math.min(1, trace.presence.data[i] * 2));
    context.fillRect(left + place * slot, base - tall, slot + 0.4, tall);
    const last = place + 1 === children || winners[order[place + 1]] !== k;
    if (!last) return;
    context.fillStyle = rgba(classColour(k));
    context.fillRect(left + from * slot, base, (place + 1 - from) * slot, 3);
    context.textAlign = "center";
    if ((place + 1 - from) * slot > 12) {
      context.fillStyle = rgba(palette.quiet);
      context.fillText(world.info.class_names[k].slice(0, 8), left + ((from + place + 1) / 2) * slot, base + 12);
    }
    from = place + 1;
  });
}

/** Return a child's coupling before routing: that of the first of several iterations, or 1 / classes in one pass.
 *  @param {NonNullable<World["trace"]>} trace */
function evenShare({ couplings: { shape, data } }) {
  return shape[0] > 1 ? data[0] : 1 / shape[2];
}

/** Return the top of the scale: a little more than the largest coupling with a class.
 *  @param {NonNullable<World["trace"]>} trace @param {number} focus */
function roof(trace, focus) {
  const classes = trace.couplings.shape[2];
  let most = 0;
  for (let i = focus; i < trace.couplings.data.length; i += classes) most = Math.max(most, trace.couplings.data[i]);
  return Math.min(1, most * 1.08);
}

/** @type {WeakMap<object, {order: number[], winners: number[], most: number}>} */
const known = new WeakMap();

/** Return each child's class with the largest final coupling, the order of the columns, and the largest change.
 *  @param {NonNullable<World["trace"]>} trace */
function preferences(trace) {
  const found = known.get(trace);
  if (found) return found;
  const [steps, children, classes] = trace.couplings.shape;
  const data = trace.couplings.data;
  const from = (steps - 1) * children * classes;
  const winners = Array.from({ length: children }, (_, i) => {
    let winner = 0;
    for (let k = 1; k < classes; k++) if (data[from + i * classes + k] > data[from + i * classes + winner]) winner = k;
    return winner;
  });
  const share = (/** @type {number} */ i) => data[from + i * classes + winners[i]];
  const order = winners.map((_, i) => i).sort((a, b) => winners[a] - winners[b] || share(b) - share(a));
  const most = Math.max(1e-6, ...order.map((i) => share(i) - evenShare(trace)));
  const result = { order, winners, most };
  known.set(trace, result);
  return result;
}

// The votes for one class in a plane of the pose space. Horizontal: the component along the class's vector v (the
// agreement). Vertical: the main direction of the rest. The size of a dot is its coupling.
/** @import {World} from "../types.ts" */
import { arrow, colours, rgba } from "../paint.js";
import { shownStep } from "../state.js";

/**
 * @param {CanvasRenderingContext2D} context @param {World} world
 * @param {{width: number, height: number, small?: boolean, step?: number, chosen?: number | null}} options
 * A fractional `step` is drawn as an interpolation between two iterations.
 */
export function drawCloud(context, world, { width, height, small = false, step = shownStep(world), chosen = null }) {
  const trace = world.trace;
  if (!trace) return;
  const palette = colours();
  const { points, mean, spread, outputs, focus } = trace.cloud;
  const { toX, toY, unit } = frame(trace.cloud, width, height, small ? 6 : 30);
  const [steps, children, classes] = trace.couplings.shape;
  const low = Math.min(steps - 1, Math.floor(step));
  const high = Math.min(steps - 1, low + 1);
  const part = step - low;
  const mix = (/** @type {ArrayLike<number>} */ data, /** @type {number} */ stride, /** @type {number} */ at) =>
    data[low * stride + at] * (1 - part) + data[high * stride + at] * part;

  context.strokeStyle = rgba(palette.line);
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, toY(0));
  context.lineTo(width, toY(0));
  context.moveTo(toX(0), 0);
  context.lineTo(toX(0), height);
  context.stroke();

  // With uniform couplings the dots have the same size for any number of classes. A few children get larger ones.
  const scale = (small ? 0.9 : 1.7) * Math.sqrt(classes / 10) * (children < 100 ? 2 : 1);
  context.fillStyle = rgba(palette.vote, small ? 0.45 : 0.5);
  for (let i = 0; i < children; i++) {
    const coupling = mix(trace.couplings.data, children * classes, i * classes + focus);
    const radius = scale * Math.sqrt(coupling * 4);
    if (radius < 0.12) continue;
    context.beginPath();
    context.arc(toX(points.data[2 * i]), toY(points.data[2 * i + 1]), radius, 0, 7);
    context.fill();
  }
  ellipse([0, 1, 2, 3].map((k) => mix(spread.data, 4, k)), toX(mix(mean.data, 2, 0)), toY(mix(mean.data, 2, 1)));

  context.strokeStyle = rgba(palette.parent);
  context.lineWidth = small ? 2.5 : 3.5;
  const [vx, vy] = [mix(outputs.data, 2, 0), mix(outputs.data, 2, 1)];
  const border = width - toX(0) - (small ? 4 : 14);
  // A vector of length 1 reaches the border; a pose ends among its votes, where it is.
  const full = world.info.measure === "length" ? border : Math.min(unit, border / Math.max(1e-9, Math.abs(vx)));
  arrow(context, toX(0), toY(0), vx * full, -vy * full, small ? 6 : 10);
  if (chosen !== null) {
    context.strokeStyle = rgba(palette.child);
    context.lineWidth = 2;
    context.beginPath();
    const inside = (/** @type {number} */ at, /** @type {number} */ end) => Math.min(end - 8, Math.max(8, at));
    context.arc(inside(toX(points.data[2 * chosen]), width), inside(toY(points.data[2 * chosen + 1]), height), small ? 3 : 7, 0, 7);
    context.stroke();
  }

  /** Draw one standard deviation of the votes, weighted by their couplings.
   *  @param {number[]} covariance @param {number} x @param {number} y */
  function ellipse([a, b, , d], x, y) {
    const middle = (a + d) / 2;
    const off = Math.hypot((a - d) / 2, b);
    context.strokeStyle = rgba(palette.vote);
    context.lineWidth = small ? 1 : 1.5;
    context.setLineDash(small ? [] : [5, 4]);
    context.beginPath();
    context.ellipse(x, y, Math.sqrt(Math.max(0, middle + off)) * unit, Math.sqrt(Math.max(0, middle - off)) * unit, -Math.atan2(2 * b, a - d) / 2, 0, 7);
    context.stroke();
    context.setLineDash([]);
  }
}

/**
 * Return scales, equal in both directions, that show the origin and all but the farthest votes.
 * @param {NonNullable<World["trace"]>["cloud"]} cloud @param {number} width @param {number} height @param {number} margin
 */
export function frame(cloud, width, height, margin) {
  const { left, right, far } = reachOf(cloud);
  const unit = Math.min((width - 2 * margin) / (right - left), (height / 2 - margin) / far);
  const start = (width - (right + left) * unit) / 2;
  return {
    unit,
    toX: (/** @type {number} */ x) => start + x * unit,
    toY: (/** @type {number} */ y) => height / 2 - y * unit,
  };
}

/** @type {WeakMap<object, {left: number, right: number, far: number}>} */
const reaches = new WeakMap();

/** @param {NonNullable<World["trace"]>["cloud"]} cloud */
function reachOf(cloud) {
  const known = reaches.get(cloud);
  if (known) return known;
  const points = cloud.points.data;
  const across = points.filter((_, i) => i % 2 === 0).sort();
  const down = points.filter((_, i) => i % 2 === 1).map(Math.abs).sort();
  const at = (/** @type {ArrayLike<number>} */ sorted, /** @type {number} */ share) => sorted[Math.round(share * (sorted.length - 1))];
  const right = Math.max(0.05, at(across, 0.997));
  const reach = { left: Math.min(-0.4 * right, at(across, 0.003)), right, far: Math.max(0.05, at(down, 0.997)) };
  reaches.set(cloud, reach);
  return reach;
}

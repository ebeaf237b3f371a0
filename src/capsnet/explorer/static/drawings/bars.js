// A vector as bars above and below a line.
import { begin, canvasOf, colours, largest, rgba } from "../paint.js";
import { number } from "../dom.js";
/** @import {Rgb} from "../paint.js" */

/** @param {number} width @param {number} height @param {string} name */
export function bars(width, height, name) {
  const canvas = canvasOf(width, height, name);
  return {
    canvas,
    /** @param {ArrayLike<number>} values @param {Rgb} colour @param {number} [max] */
    show(values, colour, max = largest(values) || 1) {
      const { context } = begin(canvas);
      const slot = width / values.length;
      context.fillStyle = rgba(colours().line);
      context.fillRect(0, height / 2 - 0.5, width, 1);
      context.fillStyle = rgba(colour);
      for (let k = 0; k < values.length; k++) {
        const tall = (values[k] / max) * (height / 2 - 2);
        context.fillRect(k * slot + slot * 0.15, height / 2, slot * 0.7, -tall);
      }
      canvas.setAttribute("aria-label", `${name}: ${Array.from(values, (x) => number(x, 3)).join(", ")}`);
    },
  };
}

/**
 * Draw the squash curve with one capsule on it.
 * @param {number} width @param {number} height
 */
export function squashCurve(width, height) {
  const canvas = canvasOf(width, height, "How squash shortens a vector");
  return {
    canvas,
    /** @param {ArrayLike<number>} curve pairs ‖s‖, ‖squash(s)‖ @param {number} before @param {number} after @param {Rgb} colour */
    show(curve, before, after, colour) {
      const { context } = begin(canvas);
      const palette = colours();
      const reach = curve[curve.length - 2];
      const tick = [1, 2, 5, 10, 20, 50, 100].find((step) => reach / step <= 6) ?? reach;
      const toX = (/** @type {number} */ x) => 26 + (x / reach) * (width - 36);
      const toY = (/** @type {number} */ y) => height - 22 - y * (height - 34);
      context.strokeStyle = rgba(palette.line);
      context.lineWidth = 1;
      context.beginPath();
      for (const y of [0, 0.5, 1]) {
        context.moveTo(toX(0), toY(y));
        context.lineTo(toX(reach), toY(y));
      }
      context.stroke();
      context.fillStyle = rgba(palette.quiet);
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const y of [0, 0.5, 1]) context.fillText(String(y), 22, toY(y));
      context.textAlign = "center";
      for (let x = 0; x <= reach; x += tick) context.fillText(String(x), toX(x), height - 9);
      context.strokeStyle = rgba(colour, 0.7);
      context.lineWidth = 2;
      context.beginPath();
      for (let i = 0; i < curve.length; i += 2) context.lineTo(toX(curve[i]), toY(curve[i + 1]));
      context.stroke();
      context.setLineDash([3, 3]);
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(toX(before), toY(0));
      context.lineTo(toX(before), toY(after));
      context.lineTo(toX(0), toY(after));
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = rgba(colour);
      context.beginPath();
      context.arc(toX(before), toY(after), 5, 0, 7);
      context.fill();
      canvas.setAttribute("aria-label", `Squash: a vector of length ${number(before)} becomes one of length ${number(after)}`);
    },
  };
}

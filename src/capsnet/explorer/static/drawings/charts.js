// Small line charts.
/** @import {Rgb} from "../paint.js" */
import { h, number, replace } from "../dom.js";
import { begin, canvasOf, colours, rgba } from "../paint.js";

/** @param {number} width @param {number} height @param {string} title */
export function chart(width, height, title) {
  const canvas = canvasOf(width, height, title);
  const legend = h("figcaption", {});
  return {
    canvas,
    legend,
    /** @param {{x: number[], unit: string, max?: number, origin: number, lines: Array<{name: string, values: number[], colour: Rgb, role: string}>}} data */
    show({ x, unit, max, origin, lines }) {
      const { context } = begin(canvas);
      const palette = colours();
      const top = max ?? Math.max(0.1, ...lines.flatMap(({ values }) => values)) * 1.08;
      const toX = (/** @type {number} */ k) => 38 + (k / (x.length - 1)) * (width - 54);
      const toY = (/** @type {number} */ y) => height - 26 - (y / top) * (height - 40);
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      context.strokeStyle = rgba(palette.line);
      context.fillStyle = rgba(palette.quiet);
      for (const share of [0, 0.5, 1]) {
        const y = toY(top * share);
        context.beginPath();
        context.moveTo(38, y);
        context.lineTo(width - 16, y);
        context.stroke();
        context.textAlign = "right";
        context.fillText(number(top * share, 2), 33, y);
      }
      context.textAlign = "center";
      for (const k of [0, origin, x.length - 1]) context.fillText(`${number(x[k], Number.isInteger(x[k]) ? 0 : 1)}${unit}`, toX(k), height - 10);
      context.beginPath();
      context.moveTo(toX(origin), toY(0));
      context.lineTo(toX(origin), toY(top));
      context.stroke();
      for (const { values, colour } of lines) {
        context.strokeStyle = context.fillStyle = rgba(colour);
        context.lineWidth = 2;
        context.beginPath();
        values.forEach((value, k) => context.lineTo(toX(k), toY(value)));
        context.stroke();
        values.forEach((value, k) => {
          context.beginPath();
          context.arc(toX(k), toY(value), 2.5, 0, 7);
          context.fill();
        });
      }
      context.lineWidth = 1;
      replace(legend, ...lines.map(({ name, role }) => h("span", { class: "key", "--hue": `var(--${role})` }, name)));
      canvas.setAttribute("aria-label", `${title}: ${lines.map(({ name, values }) => `${name} from ${number(values[0], 2)} through ${number(values[origin], 2)} to ${number(values[values.length - 1], 2)}`).join("; ")}`);
    },
  };
}

/** Draw a path on a plane with its origin marked. @param {number} width @param {number} height @param {string} title */
export function pathChart(width, height, title) {
  const canvas = canvasOf(width, height, title);
  const caption = h("figcaption", {});
  return {
    canvas,
    caption,
    /** @param {{path: ArrayLike<number>, origin: number, colour: Rgb, caption: string}} data */
    show({ path, origin, colour, caption: text }) {
      const { context } = begin(canvas);
      let far = 1e-9;
      for (let i = 0; i < path.length; i++) far = Math.max(far, Math.abs(path[i]));
      const unit = (Math.min(width, height) / 2 - 14) / far;
      const at = (/** @type {number} */ k) => [width / 2 + path[2 * k] * unit, height / 2 - path[2 * k + 1] * unit];
      const steps = path.length / 2;
      context.strokeStyle = rgba(colours().line);
      context.strokeRect(0.5, 0.5, width - 1, height - 1);
      context.strokeStyle = rgba(colour, 0.6);
      context.lineWidth = 2;
      context.beginPath();
      for (let k = 0; k < steps; k++) context.lineTo(at(k)[0], at(k)[1]);
      context.stroke();
      for (let k = 0; k < steps; k++) {
        const [x, y] = at(k);
        context.fillStyle = rgba(colour, 0.35 + (0.65 * k) / (steps - 1));
        context.beginPath();
        context.arc(x, y, k === origin ? 6 : 3.5, 0, 7);
        context.fill();
      }
      context.lineWidth = 1;
      caption.textContent = text;
    },
  };
}

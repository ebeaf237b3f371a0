// What the figures share: the explorer's engine, its drawing functions, and digits to show.
import { engine } from "../../explorer/engines/browser.js";
import { latest } from "../../explorer/api.js";
import { h, number, percent, replace, slider, svg } from "../../explorer/dom.js";
import { begin, canvasOf, colours, forgetColours, ink, picture, rgba } from "../../explorer/paint.js";

export { begin, canvasOf, colours, engine, h, ink, number, percent, picture, replace, rgba, slider, svg };

export const STILL = { rotation: 0, shear: 0, scale_x: 1, scale_y: 1, shift_x: 0, shift_y: 0 };

/** Draw now, and again when the page changes between light and dark. @param {() => void} draw */
export function drawn(draw) {
  new MutationObserver(() => { forgetColours(); draw(); }).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
  draw();
}

/** Test digits: `pixels(k)` are those of the first digit of class k, or of the nth. */
export async function digits() {
  const { images, labels } = await engine.ask("examples", {});
  const size = images.shape.slice(1).reduce((a, b) => a * b, 1);
  return {
    shape: images.shape.slice(1),
    /** @param {number} k @param {number} [nth] */
    pixels(k, nth = 0) {
      const own = labels.flatMap(([label], index) => (label === k ? [index] : []));
      const index = own[nth % own.length];
      return Array.from(images.data.subarray(index * size, (index + 1) * size), (x) => x / 255);
    },
  };
}

/**
 * Compute the first answer, and return a function that asks for more; of questions that pile up only the last is asked.
 * @template Q, A
 * @param {Q} first @param {(question: Q) => Promise<A>} compute @param {(answer: A) => void} use @param {HTMLElement} words
 */
export async function asking(first, compute, use, words) {
  use(await compute(first));
  return latest(compute, use, (error) => { words.textContent = error instanceof Error ? error.message : String(error); });
}

/** @param {number[]} pixels @param {object} [motion] */
export const layer = (pixels, motion = {}) => ({ pixels, transform: { ...STILL, ...motion } });

/** @param {Array<{pixels: number[]}>} layers @param {number} [iterations] */
export const trace = (layers, iterations = 3) => engine.ask("trace", { layers, iterations, focus: null });

/** Buttons for the ten digits. @param {number} chosen @param {(k: number) => void} choose */
export function digitButtons(chosen, choose) {
  const buttons = Array.from({ length: 10 }, (_, k) => h("button", { type: "button", "aria-pressed": String(k === chosen), "data-digit": k, onclick: () => {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === k)));
    choose(k);
  } }, k));
  return h("div", { class: "buttons", role: "group", "aria-label": "Digit" }, ...buttons);
}

/** A picture with a caption. @param {string} label @param {number} side */
export function panel(label, side = 150) {
  const canvas = canvasOf(side, side, label);
  const caption = h("figcaption", {}, label);
  return { element: h("figure", { class: "panel" }, canvas, caption), canvas, caption, side,
    /** @param {{shape: number[], data: ArrayLike<number>}} tensor @param {object} [options] */
    show(tensor, options = {}) { picture(begin(canvas).context, tensor, { width: side, height: side, colour: colours().input, ...options }); } };
}

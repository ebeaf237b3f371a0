// Draw on canvases. Sizes are in CSS pixels. Colours come from style.css, for the light and the dark scheme.
/** @typedef {[number, number, number]} Rgb */

const NAMES = /** @type {const} */ ([
  "ink", "paper", "card", "line", "quiet", "input", "child", "vote", "parent", "reco", "control", "first", "second", "pos", "neg",
]);
/** @typedef {typeof NAMES[number]} Role */

/** @type {Record<Role, Rgb> | null} */
let known = null;

/** @type {Rgb[]} */
let classColours = [];

/** @returns {Record<Role, Rgb>} */
export function colours() {
  if (known) return known;
  const style = getComputedStyle(document.documentElement);
  const parse = (/** @type {string} */ name) => {
    const text = style.getPropertyValue(name).trim().replace("#", "");
    return /** @type {Rgb} */ ([0, 2, 4].map((at) => parseInt(text.slice(at, at + 2), 16)));
  };
  known = /** @type {Record<Role, Rgb>} */ (Object.fromEntries(NAMES.map((name) => [name, parse(`--${name}`)])));
  classColours = Array.from({ length: 10 }, (_, k) => parse(`--k${k}`));
  return known;
}

/** Forget the colours after a change between the light and the dark scheme. */
export function forgetColours() {
  known = null;
}

/** @param {number} k @returns {Rgb} */
export function classColour(k) {
  colours();
  return classColours[k % 10];
}

/** @param {Rgb} colour @param {number} [alpha] */
export function rgba([r, g, b], alpha = 1) {
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

/**
 * Create a canvas of the given size in CSS pixels, sharp on any screen. It may be shown smaller, never larger.
 * @param {number} width @param {number} height
 * @param {string} label description for users who cannot see it
 */
export function canvasOf(width, height, label) {
  const canvas = document.createElement("canvas");
  canvas.className = "drawing";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  size(canvas, width, height);
  return canvas;
}

/** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height */
export function size(canvas, width, height) {
  const scale = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.dataset.width = String(width);
  canvas.style.setProperty("--w", `${width}px`);
  canvas.style.aspectRatio = `${width} / ${height}`;
}

/**
 * Clear the canvas and return a context that draws in CSS pixels.
 * @param {HTMLCanvasElement} canvas
 */
export function begin(canvas) {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser has no canvas");
  const width = Number(canvas.dataset.width);
  const scale = canvas.width / width;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  const height = canvas.height / scale;
  context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  return { context, width, height };
}

/** Return the pointer's position on a canvas, in the canvas's pixels.
 *  @param {HTMLCanvasElement} canvas @param {MouseEvent} event */
export function placeOn(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const scale = Number(canvas.dataset.width) / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

const scratch = document.createElement("canvas");

/**
 * Draw numbers as ink: 0 is paper, `max` is full colour. Negative numbers get the colour `negative`, if given.
 * @param {CanvasRenderingContext2D} context
 * @param {ArrayLike<number>} data
 * @param {{rows: number, columns: number, offset?: number, x: number, y: number, width: number, height: number,
 *          colour: Rgb, negative?: Rgb, max?: number, alpha?: number}} options
 */
export function ink(context, data, { rows, columns, offset = 0, x, y, width, height, colour, negative, max = 1, alpha = 1 }) {
  const image = new ImageData(columns, rows);
  const pixels = image.data;
  const scale = max > 0 ? (255 * alpha) / max : 0;
  for (let i = 0; i < rows * columns; i++) {
    const value = data[offset + i];
    const [r, g, b] = value < 0 && negative ? negative : colour;
    pixels[4 * i] = r;
    pixels[4 * i + 1] = g;
    pixels[4 * i + 2] = b;
    pixels[4 * i + 3] = (negative ? Math.abs(value) : value) * scale;
  }
  stamp(context, image, x, y, width, height);
}

/** @param {CanvasRenderingContext2D} context @param {ImageData} image
 *  @param {number} x @param {number} y @param {number} width @param {number} height */
function stamp(context, image, x, y, width, height) {
  if (scratch.width !== image.width) scratch.width = image.width;
  if (scratch.height !== image.height) scratch.height = image.height;
  scratch.getContext("2d")?.putImageData(image, 0, 0);
  context.drawImage(scratch, x, y, width, height);
}

/**
 * Draw an input image: one channel as ink of `colour`, three channels in their own colours.
 * @param {CanvasRenderingContext2D} context
 * @param {{shape: number[], data: ArrayLike<number>}} tensor (…, channels, height, width)
 * @param {{index?: number, x?: number, y?: number, width: number, height?: number, colour: Rgb, alpha?: number, max?: number}} options
 */
export function picture(context, { shape, data }, { index = 0, x = 0, y = 0, width, height, colour, alpha = 1, max = 1 }) {
  const [channels, rows, columns] = shape.slice(-3);
  const plane = rows * columns;
  const offset = index * channels * plane;
  const fit = width / Math.max(rows, columns); // without a height, the picture fits into a square
  const [wide, tall] = height === undefined ? [columns * fit, rows * fit] : [width, height];
  if (channels !== 3) {
    ink(context, data, { rows, columns, offset, x, y, width: wide, height: tall, colour, alpha, max });
    return;
  }
  const image = new ImageData(columns, rows);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (255 * data[offset + c * plane + i]) / max;
    image.data[4 * i + 3] = 255 * alpha;
  }
  stamp(context, image, x, y, wide, tall);
}

/**
 * Draw an arrow; very short arrows are not drawn.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x @param {number} y @param {number} dx @param {number} dy @param {number} [head]
 */
export function arrow(context, x, y, dx, dy, head = 4) {
  const length = Math.hypot(dx, dy);
  if (length < 0.5) return;
  const [ux, uy] = [dx / length, dy / length];
  const size = Math.min(head, length * 0.6);
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + dx, y + dy);
  context.moveTo(x + dx - size * (ux - 0.5 * uy), y + dy - size * (uy + 0.5 * ux));
  context.lineTo(x + dx, y + dy);
  context.lineTo(x + dx - size * (ux + 0.5 * uy), y + dy - size * (uy - 0.5 * ux));
  context.stroke();
}

/** @param {ArrayLike<number>} data @param {number} [from] @param {number} [to] */
export function largest(data, from = 0, to = data.length) {
  let max = 0;
  for (let i = from; i < to; i++) max = Math.max(max, Math.abs(data[i]));
  return max;
}

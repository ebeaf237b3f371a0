// The board: draw with pointer or keys, drop a picture, drag handles. The controls beside it are in tools.js.
/** @import {World} from "./types.ts" */
import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { handles } from "./handles.js";
import { begin, canvasOf, colours, picture, rgba } from "./paint.js";
import { stroke } from "./pen.js";
import { STILL, changeDigit, current, isStill } from "./state.js";
import { toolbox } from "./tools.js";

const SIDE = 344;
const MARGIN = 32;
const IMAGE = SIDE - 2 * MARGIN;

/** @param {HTMLElement} boardHome @param {HTMLElement} toolsHome @param {(error: unknown) => void} fail */
export function inputPanel(boardHome, toolsHome, fail) {
  const canvas = canvasOf(SIDE, SIDE, "The board");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "drawing board");
  canvas.tabIndex = 0;
  const [, rows, columns] = current().info.geometry.image_shape;
  const unit = IMAGE / Math.max(rows, columns);
  const toPixels = (/** @type {{x: number, y: number}} */ point) => {
    const box = canvas.getBoundingClientRect();
    const scale = SIDE / box.width;
    return { x: ((point.x - box.left) * scale - MARGIN) / unit, y: ((point.y - box.top) * scale - MARGIN) / unit };
  };
  const grips = handles(SIDE, toPixels);
  replace(boardHome, h("div", { class: "board" }, canvas, grips.element));

  /** Position of the keyboard's pen, and whether it is down. */
  const pen = { x: columns / 2, y: rows / 2, down: false, shown: false };

  drawWithPointer();
  drawWithKeys();
  takeDrops();
  const tools = toolbox(toolsHome, takePicture);

  /** Turn a moved or picked digit into plain pixels at its position, so that it can be drawn on; null: not yet. */
  function editable() {
    const world = current();
    const digit = world.digits[world.active];
    const pixels = Uint8Array.from(digit.pixels);
    if (isStill(digit.motion)) return pixels;
    const layers = world.traced[world.active] === digit ? world.trace?.layers : null;
    if (!layers) return null; // its place is not computed yet
    return Uint8Array.from(layers.data.subarray(world.active * pixels.length, (world.active + 1) * pixels.length), (x) => Math.round(x * 255));
  }

  /** @param {{x: number, y: number}} from @param {{x: number, y: number}} to */
  function drawLine(from, to) {
    const world = current();
    const pixels = editable();
    if (!pixels) return;
    stroke(pixels, world.info.geometry.image_shape, from, to, world.tool === "erase");
    changeDigit({ pixels, example: null, motion: { ...STILL } });
  }

  function drawWithPointer() {
    /** @type {{x: number, y: number} | null} */
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (current().tool === "move" || event.button !== 0) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      pen.shown = false;
      last = toPixels({ x: event.clientX, y: event.clientY });
      drawLine(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) {
        const next = toPixels({ x: part.clientX, y: part.clientY });
        drawLine(last, next);
        last = next;
      }
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = null));
  }

  function drawWithKeys() {
    canvas.addEventListener("keydown", (event) => {
      if (current().tool === "move") return;
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === " " || event.key === "Enter") {
        pen.down = !pen.down;
        if (pen.down) drawLine(pen, pen);
      } else if (step) {
        const from = { x: pen.x, y: pen.y };
        pen.x = Math.min(columns - 0.5, Math.max(0.5, pen.x + step[0]));
        pen.y = Math.min(rows - 0.5, Math.max(0.5, pen.y + step[1]));
        if (pen.down) drawLine(from, pen);
      } else return;
      event.preventDefault();
      pen.shown = true;
      draw(current());
    });
    canvas.addEventListener("blur", () => {
      pen.down = pen.shown = false;
      draw(current());
    });
  }

  function takeDrops() {
    boardHome.addEventListener("dragover", (event) => {
      event.preventDefault();
      boardHome.classList.add("over");
    });
    boardHome.addEventListener("dragleave", () => boardHome.classList.remove("over"));
    boardHome.addEventListener("drop", (event) => {
      event.preventDefault();
      boardHome.classList.remove("over");
      const file = event.dataTransfer?.files[0];
      if (file) takePicture(file);
    });
  }

  /** @param {Blob} file */
  async function takePicture(file) {
    try {
      const { image } = await api.picture(file);
      changeDigit({ pixels: Uint8Array.from(image.data, (x) => Math.round(x * 255)), example: null, motion: { ...STILL } });
    } catch (error) {
      fail(error);
    }
  }

  /** @param {World} world */
  function draw(world) {
    const { context } = begin(canvas);
    const palette = colours();
    const [width, height] = [columns * unit, rows * unit];
    context.fillStyle = rgba(palette.card);
    context.fillRect(MARGIN, MARGIN, width, height);
    const two = world.digits.length > 1;
    world.digits.forEach((digit, index) => {
      const colour = two ? [palette.first, palette.second][index] : palette.input;
      const where = { x: MARGIN, y: MARGIN, width, height, colour, alpha: two ? 0.85 : 1 };
      const layers = world.trace?.layers;
      if (!isStill(digit.motion) && layers && index < layers.shape[0]) {
        picture(context, layers, { ...where, index });
      } else {
        picture(context, { shape: world.info.geometry.image_shape, data: digit.pixels }, { ...where, max: 255 });
      }
    });
    context.strokeStyle = rgba(palette.line);
    context.strokeRect(MARGIN + 0.5, MARGIN + 0.5, width - 1, height - 1);
    if (pen.shown) {
      context.strokeStyle = rgba(palette.parent);
      context.lineWidth = pen.down ? 3 : 1.5;
      context.beginPath();
      context.arc(MARGIN + pen.x * unit, MARGIN + pen.y * unit, unit * 0.9, 0, 7);
      context.stroke();
      context.lineWidth = 1;
    }
    if (world.digits.every((digit) => digit.pixels.every((value) => value === 0))) {
      context.fillStyle = rgba(palette.quiet);
      context.font = "15px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("Draw a digit here", SIDE / 2, SIDE / 2);
    }
  }

  return {
    /** @param {World} world @param {Set<keyof World>} changed */
    update(world, changed) {
      if (["digits", "trace", "active", "tool", "examples"].some((name) => changed.has(/** @type {keyof World} */ (name)))) {
        draw(world);
        grips.element.classList.toggle("shown", world.tool === "move");
        grips.update(world, (x, y) => [MARGIN + x * unit, MARGIN + y * unit]);
        canvas.classList.toggle("drawable", world.tool !== "move");
        const hint = { draw: "arrow keys move the pen, space lowers and lifts it", erase: "arrow keys move the eraser, space lowers and lifts it", move: "use the handles" };
        canvas.setAttribute("aria-label", `The board: ${describe(world)}; ${hint[world.tool]}`);
      }
      tools.update(world, changed);
    },
  };
}

/** @param {World} world */
function describe(world) {
  return world.digits
    .map((digit) => (digit.example === null ? "a drawing" : `test digit ${digit.example}, a ${world.examples.labels[digit.example].map((k) => world.info.class_names[k]).join(" and ")}`))
    .join(" on top of ");
}

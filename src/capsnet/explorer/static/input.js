// The visitor's side: draw, erase, pick, drop a picture, drag; one digit or two.
/** @import {World, Tool, Motion} from "./types.ts" */
import { api } from "./api.js";
import { h, number, replace, slider } from "./dom.js";
import { handles, tidied } from "./handles.js";
import { begin, canvasOf, colours, picture, rgba } from "./paint.js";
import { stroke } from "./pen.js";
import { STILL, change, changeDigit, current, emptyDigit, exampleDigit, isStill, tell } from "./state.js";

const SIDE = 344;
const MARGIN = 32;
const IMAGE = SIDE - 2 * MARGIN;
const PICKS = 10;

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

  /** Where the keyboard's pen is, and whether it touches. */
  const pen = { x: columns / 2, y: rows / 2, down: false, shown: false };

  drawWithPointer();
  drawWithKeys();
  takeDrops();
  const tools = toolbox(toolsHome, takePicture);

  /** A digit that is moved or picked becomes pixels of its own, where it lies, before somebody draws on it. */
  function editable() {
    const world = current();
    const digit = world.digits[world.active];
    const pixels = Uint8Array.from(digit.pixels);
    const layers = world.trace?.layers;
    if (isStill(digit.motion) || !layers || world.active >= layers.shape[0]) return pixels;
    return Uint8Array.from(layers.data.subarray(world.active * pixels.length, (world.active + 1) * pixels.length), (x) => Math.round(x * 255));
  }

  /** @param {{x: number, y: number}} from @param {{x: number, y: number}} to */
  function drawLine(from, to) {
    const world = current();
    const pixels = editable();
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

/** @type {Array<[Tool, string, string]>} */
const TOOLS = [
  ["draw", "Draw", "Draw with mouse, finger or arrow keys"],
  ["erase", "Erase", "Take ink away"],
  ["move", "Move", "Drag, turn, scale and shear with handles"],
];

/** @type {Array<{label: string, names: Array<keyof Motion>, min: number, max: number, step: number, unit?: string, digits: number}>} */
const MOTIONS = [
  { label: "Turn", names: ["rotation"], min: -180, max: 180, step: 1, unit: "°", digits: 0 },
  { label: "Scale", names: ["scale_x", "scale_y"], min: 0.3, max: 2.5, step: 0.01, digits: 2 },
  { label: "Shear", names: ["shear"], min: -1, max: 1, step: 0.01, digits: 2 },
  { label: "Across", names: ["shift_x"], min: -12, max: 12, step: 0.25, unit: " px", digits: 2 },
  { label: "Down", names: ["shift_y"], min: -12, max: 12, step: 0.25, unit: " px", digits: 2 },
];

/**
 * @param {HTMLElement} home
 * @param {(file: Blob) => Promise<void>} takePicture
 */
function toolbox(home, takePicture) {
  const toolButtons = TOOLS.map(([tool, label, title]) => {
    const button = h("button", { type: "button", title, id: `tool-${tool}`, onclick: () => change({ tool }) }, label);
    return { tool, button };
  });
  const layerButtons = [0, 1].map((index) =>
    h("button", { type: "button", id: `digit-${index}`, class: `layer l${index}`, onclick: () => selectLayer(index) }),
  );
  const remove = h("button", { type: "button", id: "digit-remove", class: "plain", onclick: removeLayer }, "Remove");
  const picks = h("div", { class: "picks", role: "group", "aria-label": "Test digits" });
  let page = 0;
  const more = h("button", { type: "button", id: "more-digits", onclick: () => showPicks(++page) }, "Other digits");
  const file = /** @type {HTMLInputElement} */ (
    h("input", { type: "file", accept: "image/*", id: "picture", class: "hidden", onchange: () => file.files?.[0] && takePicture(file.files[0]).then(() => (file.value = "")) })
  );
  const motion = MOTIONS.map(({ names, ...options }) => ({
    names,
    ...slider({
      ...options,
      value: STILL[names[0]],
      id: `motion-${names[0]}`,
      oninput(value) {
        const world = current();
        const next = { ...world.digits[world.active].motion };
        for (const name of names) next[name] = value;
        changeDigit({ motion: tidied(next) });
      },
    }),
  }));
  const reset = h("button", { type: "button", id: "motion-reset", class: "plain", onclick: () => changeDigit({ motion: { ...STILL } }) }, "Back to where it was");

  const shapes = /** @type {HTMLDetailsElement} */ (
    h("details", { id: "shapes" }, h("summary", {}, "Turn, scale, shear, move"),
      h("div", { class: "sliders" }, ...motion.map(({ element }) => element), reset),
      h("p", { class: "quiet small", id: "provenance" }))
  );
  // Folded away on a phone, where the picture below matters more.
  const wide = matchMedia("(min-width: 861px)");
  shapes.open = wide.matches;
  wide.addEventListener("change", () => (shapes.open = wide.matches));

  replace(
    home,
    h("div", { class: "segments", role: "group", "aria-label": "Tool" }, ...toolButtons.map(({ button }) => button)),
    h("div", { class: "row" }, ...layerButtons, remove, h("button", { type: "button", id: "clear", class: "plain", onclick: () => changeDigit({ ...emptyDigit() }) }, "Clear")),
    h("h2", {}, "Pick a test digit"),
    picks,
    h("div", { class: "row" }, more, h("label", { class: "button", for: "picture", tabindex: 0, role: "button", onkeydown: (/** @type {KeyboardEvent} */ event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), file.click()) }, "Open a picture…"), file),
    shapes,
  );

  /** @param {number} index */
  function selectLayer(index) {
    const world = current();
    if (index < world.digits.length) change({ active: index });
    else {
      // Another class than the first, a little to the right: both can be seen. Eights and zeros are easily told.
      const wanted = world.trace?.ranking[0] === 8 ? 0 : 8;
      const other = Math.max(0, world.examples.labels.findIndex(([label]) => label === wanted));
      const second = world.examples.labels.length ? exampleDigit(other) : emptyDigit();
      second.motion.shift_x = 4;
      const first = { ...world.digits[0], motion: { ...world.digits[0].motion } };
      if (isStill(first.motion)) first.motion.shift_x = -4;
      change({ digits: [first, second], active: 1, pose: null, focus: null });
    }
  }

  function removeLayer() {
    const world = current();
    change({ digits: world.digits.filter((_, index) => index !== world.active), active: 0, pose: null, focus: null });
  }

  /** @param {number} wanted */
  function showPicks(wanted) {
    const { labels, images } = current().examples;
    if (!labels.length) {
      replace(picks, h("p", { class: "quiet" }, "None: the data that this model was trained on are not on this machine."));
      more.hidden = true;
      return;
    }
    const pages = Math.max(1, Math.floor(labels.length / PICKS));
    page = wanted % pages;
    const buttons = choose(labels, page).map((index) => {
      const names = labels[index].map((k) => current().info.class_names[k]).join(" and ");
      const thumb = canvasOf(40, 40, "");
      thumb.removeAttribute("role");
      thumb.setAttribute("aria-hidden", "true");
      thumb.dataset.example = String(index);
      picture(begin(thumb).context, images, { index, width: 40, height: 40, colour: colours().input, max: 255 });
      return h("button", { type: "button", class: "pick", "data-example": index, "aria-label": `Test digit ${index}: ${names}`, title: `Test digit ${index}: ${names}`, onclick: () => pick(index) }, thumb);
    });
    replace(picks, ...buttons);
  }

  /** @param {number} index */
  function pick(index) {
    const world = current();
    const { motion } = world.digits[world.active];
    // Where a digit was put stays: two digits keep their places when one is exchanged.
    const keep = world.digits.length > 1 ? { ...motion } : { ...STILL };
    changeDigit({ ...exampleDigit(index), motion: keep });
    tell();
  }

  return {
    /** @param {World} world @param {Set<keyof World>} changed */
    update(world, changed) {
      for (const { tool, button } of toolButtons) button.setAttribute("aria-pressed", String(tool === world.tool));
      if (changed.has("digits") || changed.has("active") || changed.has("info")) {
        const two = world.digits.length > 1;
        layerButtons.forEach((button, index) => {
          button.textContent = index === 0 ? "First" : two ? "Second" : "Add a second digit";
          button.setAttribute("aria-pressed", String(two && index === world.active));
          button.classList.toggle("two", two);
        });
        layerButtons[0].hidden = !two;
        remove.hidden = !two;
        const digit = world.digits[world.active];
        for (const { names, set } of motion) set(digit.motion[names[0]]);
        reset.hidden = isStill(digit.motion);
        for (const button of picks.children) {
          button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.example === String(digit.example)));
        }
      }
      if (changed.has("examples")) {
        showPicks(page);
        const note = home.querySelector("#provenance");
        if (note) note.textContent = world.examples.provenance;
      }
    },
  };
}

/** One digit of each class if there are ten, the `page`-th of its class; else the next ten.
 *  @param {number[][]} labels @param {number} page @returns {number[]} */
function choose(labels, page) {
  /** @type {Map<number, number[]>} */
  const byClass = new Map();
  labels.forEach((label, index) => byClass.set(label[0], [...(byClass.get(label[0]) ?? []), index]));
  if (byClass.size !== PICKS || labels.some((label) => label.length > 1)) {
    return labels.map((_, index) => index).slice(page * PICKS, (page + 1) * PICKS);
  }
  return [...byClass.keys()].sort((a, b) => a - b).map((k) => {
    const own = byClass.get(k) ?? [0];
    return own[page % own.length];
  });
}

/**
 * What the network says, in words.
 * @param {HTMLElement} home @param {World} world
 */
export function showAnswer(home, world) {
  const trace = world.trace;
  if (!trace) return;
  const names = world.info.class_names;
  const found = trace.speakers;
  const count = found.length;
  const empty = trace.image.data.every((value) => value === 0);
  const strong = empty ? [] : found.filter((k) => trace.lengths.data[k] >= 0.5);
  const spoken = strong.length
    ? found.map((k, place) => h("span", { class: `said ${strong.includes(k) ? "" : "unsure"} ${count > 1 ? `c${place}` : ""}` }, h("b", {}, names[k]), h("small", {}, number(trace.lengths.data[k], 3))))
    : [h("span", { class: "said unsure" }, h("b", {}, "–"), h("small", {}, empty ? `the board is empty; a network that has only ever seen digits says ${names[found[0]]}, ${number(trace.lengths.data[found[0]], 2)}` : `no capsule is longer than ${number(Math.max(...trace.lengths.data), 2)}`))];
  const control = trace.control;
  const best = control ? Array.from(control.data).indexOf(Math.max(...control.data)) : 0;
  replace(
    home,
    h("p", { class: "answer" }, h("span", { class: "who" }, "The capsules see"), ...spoken),
    ...(control ? [h("p", { class: "answer control" }, h("span", { class: "who" }, "The max-pooling CNN"), h("span", { class: "said" }, h("b", {}, names[best]), h("small", {}, number(control.data[best], 3))))] : []),
  );
}

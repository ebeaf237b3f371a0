// The controls beside the board: tools, one or two digits, test digits, and the transform's sliders.
/** @import {World, Tool, Motion} from "./types.ts" */
import { h, replace, slider } from "./dom.js";
import { tidied } from "./handles.js";
import { begin, canvasOf, colours, picture } from "./paint.js";
import { STILL, change, changeDigit, current, emptyDigit, exampleDigit, isStill, tell } from "./state.js";

const PICKS = 10;

/** @type {Array<[Tool, string, string]>} */
const TOOLS = [
  ["draw", "Draw", "Draw with mouse, finger or arrow keys"],
  ["erase", "Erase", "Erase ink"],
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
export function toolbox(home, takePicture) {
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
    h("input", { type: "file", accept: "image/*", id: "picture", "aria-label": "Picture file", class: "hidden", onchange: () => file.files?.[0] && takePicture(file.files[0]).then(() => (file.value = "")) })
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
  const reset = h("button", { type: "button", id: "motion-reset", class: "plain", onclick: () => changeDigit({ motion: { ...STILL } }) }, "Reset position");

  const shapes = /** @type {HTMLDetailsElement} */ (
    h("details", { id: "shapes" }, h("summary", {}, "Turn, scale, shear, move"),
      h("div", { class: "sliders" }, ...motion.map(({ element }) => element), reset),
      h("p", { class: "quiet small", id: "provenance" }))
  );
  // Closed on a phone, where the picture below needs the space.
  const wide = matchMedia("(min-width: 861px)");
  shapes.open = wide.matches;
  wide.addEventListener("change", () => (shapes.open = wide.matches));

  replace(
    home,
    h("div", { class: "segments", role: "group", "aria-label": "Tool" }, ...toolButtons.map(({ button }) => button)),
    h("div", { class: "row" }, ...layerButtons, remove, h("button", { type: "button", id: "clear", class: "plain", onclick: () => changeDigit({ ...emptyDigit() }) }, "Clear")),
    h("h2", {}, "Pick a test digit"),
    picks,
    h("div", { class: "row" }, more, h("button", { type: "button", onclick: () => file.click() }, "Open a picture…"), file),
    shapes,
  );

  /** @param {number} index */
  function selectLayer(index) {
    const world = current();
    if (index < world.digits.length) change({ active: index });
    else {
      // Use another class than the first and shift it right, so that both are visible. Eight and zero differ clearly.
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
      replace(picks, h("p", { class: "quiet whole" }, "No test digits: the training data of this model are not on this machine."));
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
      picture(begin(thumb).context, images, { index, width: 40, colour: colours().input, max: 255 });
      return h("button", { type: "button", class: "pick", "data-example": index, "aria-label": `Test digit ${index}: ${names}`, title: `Test digit ${index}: ${names}`, onclick: () => pick(index) }, thumb);
    });
    replace(picks, ...buttons);
  }

  /** @param {number} index */
  function pick(index) {
    const world = current();
    const { motion } = world.digits[world.active];
    // Keep the transform, so that two digits keep their positions when one is replaced.
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

/** Return the `page`-th digit of each class if there are ten classes, else the next ten digits.
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

// The five-minute tour: text beside the page's own controls. It can be left at any time.
/** @import {World} from "./types.ts" */
import { h, replace } from "./dom.js";
import { change, current } from "./state.js";
import { STEPS } from "./tour-steps.js";

/** @param {HTMLElement} home @param {HTMLElement} startButton @param {(error: unknown) => void} fail */
export function tourPanel(home, startButton, fail) {
  const { tour } = current().info.absent;
  startButton.toggleAttribute("disabled", Boolean(tour));
  startButton.title = tour ?? "";
  startButton.addEventListener("click", () => go(0));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && current().tour !== null) leave();
  });
  const title = h("h2", { tabindex: -1 });
  const body = h("div", { class: "tour-body" });
  const place = h("p", { class: "quiet small" });
  const back = h("button", { type: "button", id: "tour-back", onclick: () => go((current().tour ?? 0) - 1) }, "Back");
  const next = h("button", { type: "button", id: "tour-next", class: "main", onclick: () => ((current().tour ?? 0) + 1 < STEPS.length ? go((current().tour ?? 0) + 1) : leave()) });
  replace(home, h("div", { class: "tour-head" }, place, h("button", { type: "button", id: "tour-leave", class: "plain", onclick: leave }, "Leave")), title, body, h("div", { class: "row" }, back, next));
  /** @type {number | null} */
  let shown = null;
  let stop = () => {};

  /** @param {number} index */
  function go(index) {
    const at = Math.max(0, Math.min(STEPS.length - 1, index));
    change({ ...STEPS[at].state(current()), tour: at });
  }

  function leave() {
    change({ tour: null });
    startButton.focus();
  }

  /** @param {number | null} index */
  function show(index) {
    stop();
    stop = () => {};
    for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
    shown = index;
    home.hidden = index === null;
    document.body.classList.toggle("touring", index !== null);
    if (index === null) return;
    const step = STEPS[index];
    title.textContent = step.title;
    place.textContent = `Step ${index + 1} of ${STEPS.length}`;
    back.toggleAttribute("disabled", index === 0);
    next.textContent = index + 1 < STEPS.length ? "Next" : "Finish";
    const { nodes, close } = step.body(fail);
    stop = close ?? stop;
    replace(body, ...nodes);
    title.focus({ preventScroll: true });
    // The element that the step points at may be built only with the next redraw.
    window.setTimeout(() => {
      const target = document.querySelector(step.target);
      target?.classList.add("lit");
      target?.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    }, 250);
  }

  return {
    /** @param {World} world @param {Set<keyof World>} changed */
    update(world, changed) {
      if (!tour && changed.has("tour") && (world.tour === null || world.tour < STEPS.length) && world.tour !== shown) show(world.tour);
    },
  };
}

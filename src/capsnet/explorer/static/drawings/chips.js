// The classes as buttons, each with its capsule's length.
/** @import {World} from "../types.ts" */
import { h, number } from "../dom.js";
import { change, focusOf, shownStep } from "../state.js";

/** @param {World} world @param {{colours?: boolean}} [options] */
export function chips(world, { colours = false } = {}) {
  const buttons = world.info.class_names.map((name, k) =>
    h("button", { type: "button", class: colours ? "chip hued" : "chip", "data-class": k, "--hue": `var(--k${k % 10})`, onclick: () => change({ focus: k, pose: null }) },
      h("b", {}, name), h("span", { class: "meter" }), h("small", {})),
  );
  return {
    element: h("div", { class: "chips", role: "group", "aria-label": "Class to show" }, ...buttons),
    /** @param {World} world */
    update(world) {
      const trace = world.trace;
      if (!trace) return;
      const offset = shownStep(world) * world.info.geometry.classes;
      buttons.forEach((button, k) => {
        const length = trace.iteration_lengths.data[offset + k];
        button.setAttribute("aria-pressed", String(k === focusOf(world)));
        button.setAttribute("aria-label", `${world.info.class_names[k]}, ${world.info.measure} ${number(length, 2)}`);
        button.style.setProperty("--length", String(length));
        const small = button.querySelector("small");
        if (small) small.textContent = number(length, 2);
      });
    },
  };
}

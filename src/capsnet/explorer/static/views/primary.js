// Primary capsules: arrows over the image, and the arithmetic of one capsule.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {ChildResponse} from "../wire.ts" */
import { api, latest, scene } from "../api.js";
import { drawArrows, places } from "../drawings/arrows.js";
import { bars, squashCurve } from "../drawings/bars.js";
import { h, number, replace } from "../dom.js";
import { equation, pieces, prose } from "../maths.js";
import { begin, canvasOf, colours, placeOn, rgba } from "../paint.js";
import { change, current, focusOf } from "../state.js";

const SIDE = 440;

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function primaryView(home, fail) {
  const { geometry } = current().info;
  const [rows, columns] = geometry.grid;
  const area = rows * columns;
  let alone = false;
  const board = canvasOf(SIDE, SIDE, "Primary capsules as arrows over the image");
  board.tabIndex = 0;
  board.setAttribute("role", "application");
  board.setAttribute("aria-roledescription", "grid of capsules, arrow keys choose a place");
  const all = h("button", { type: "button", id: "types-all", onclick: () => show(false) }, "All types");
  const one = h("button", { type: "button", id: "types-one", onclick: () => show(true) }, "This type only");
  const type = /** @type {HTMLInputElement} */ (
    h("input", { type: "range", id: "type", min: 0, max: geometry.primary_types - 1, step: 1, "aria-label": "Capsule type", oninput: () => go(type.valueAsNumber, current().child % area) })
  );
  const typeName = h("output", {});
  const before = bars(165, 90, "s, before squash");
  const after = bars(165, 90, "u, after squash");
  const squash = squashCurve(300, 200);
  const words = h("div", { "aria-live": "polite" });
  const which = h("h3", {});
  replace(
    home,
    h("h2", {}, "Primary capsules: presence and pose of small parts"),
    h("div", { class: "columns" },
      h("figure", {}, board, h("figcaption", {}, "One arrow per capsule, at the centre of its receptive field. The longest arrow at each position is bold. Click a position, or focus the picture and use the arrow keys.")),
      h("div", { class: "text" },
        prose(`Each of the ${rows}×${columns} positions has ${geometry.primary_types} capsules {u_i} of ${geometry.primary_dim} numbers. The length of a capsule says whether its part of a stroke is present; the direction describes the part. Turn the digit on the board: a pooled feature would stay the same, but these arrows turn. Each capsule is drawn in the plane of the two directions in which its type varies most between digits.`),
        h("div", { class: "row" }, h("div", { class: "segments" }, all, one), h("label", { class: "slider" }, h("span", {}, "Type"), type, typeName)),
        which,
        h("div", { class: "pair" },
          h("figure", {}, before.canvas, h("figcaption", {}, ...pieces("{s_i}, the output of the convolution"))), h("figure", {}, after.canvas, h("figcaption", {}, ...pieces("{u_i} = squash({s_i})")))),
        h("figure", { class: "narrow" }, squash.canvas, h("figcaption", {}, "squash: length before (horizontal) and after (vertical), always below 1")),
        words)),
  );
  board.addEventListener("click", (event) => {
    const { x, y } = placeOn(board, event);
    const { step, field } = places(geometry);
    const unit = SIDE / Math.max(geometry.image_shape[1], geometry.image_shape[2]);
    const at = (/** @type {number} */ value, /** @type {number} */ count) => Math.min(count - 1, Math.max(0, Math.round((value / unit - field / 2) / step)));
    go(alone ? Math.floor(current().child / area) : strongest(at(y, rows) * columns + at(x, columns)), at(y, rows) * columns + at(x, columns));
  });
  board.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const place = current().child % area;
    const row = Math.min(rows - 1, Math.max(0, Math.floor(place / columns) + step[0]));
    const column = Math.min(columns - 1, Math.max(0, (place % columns) + step[1]));
    go(Math.floor(current().child / area), row * columns + column);
  });

  /** @param {boolean} only */
  function show(only) {
    alone = only;
    draw(current());
  }

  /** @param {number} kind @param {number} place */
  function go(kind, place) {
    change({ child: kind * area + place });
  }

  /** Return the type of the longest capsule at a position. @param {number} place */
  function strongest(place) {
    const lengths = current().trace?.presence.data ?? [];
    let best = 0;
    for (let kind = 1; kind < geometry.primary_types; kind++) if (lengths[kind * area + place] > lengths[best * area + place]) best = kind;
    return best;
  }

  const ask = latest(
    (/** @type {World} */ world) => api.child({ ...scene(world.digits), iterations: world.iterations, child: world.child, parent: focusOf(world) }),
    showChild,
    fail,
  );

  /** @param {Unpacked<ChildResponse>} answer */
  function showChild(answer) {
    const { before: s_i, before_length, squash_curve } = answer;
    if (!s_i || before_length === null || !squash_curve) return;
    const palette = colours();
    const max = Math.max(0.2, ...Array.from(s_i.data, Math.abs), ...Array.from(answer.u.data, Math.abs));
    before.show(s_i.data, palette.child, max);
    after.show(answer.u.data, palette.child, max);
    squash.show(squash_curve.data, before_length, answer.length, palette.child);
    which.textContent = `Capsule ${answer.child}: type ${answer.type}, row ${answer.row}, column ${answer.column}`;
    const s = number(before_length);
    replace(
      words,
      equation("{u_i} = ‖{s_i}‖² / (1 + ‖{s_i}‖²) · {s_i} / ‖{s_i}‖"),
      equation(`‖{s_i}‖ = [child ${s}]   →   ‖{u_i}‖ = [child ${number(answer.length)}]`),
      h("p", { class: "quiet" }, meaning(answer.length)),
    );
  }

  /** @param {Readonly<World>} world */
  function draw(world) {
    const { context } = begin(board);
    const kind = Math.floor(world.child / area);
    const place = world.child % area;
    drawArrows(context, world, { side: SIDE, margin: 4, type: alone ? kind : null, chosen: world.child });
    const { step, field } = places(geometry);
    const unit = SIDE / Math.max(geometry.image_shape[1], geometry.image_shape[2]);
    context.strokeStyle = rgba(colours().child, 0.8);
    context.setLineDash([4, 4]);
    context.lineWidth = 1.5;
    context.strokeRect((place % columns) * step * unit, Math.floor(place / columns) * step * unit, field * unit, field * unit);
    context.setLineDash([]);
    type.value = String(kind);
    typeName.textContent = String(kind);
    all.setAttribute("aria-pressed", String(!alone));
    one.setAttribute("aria-pressed", String(alone));
  }

  return {
    update(world, changed) {
      if (changed.has("trace") || changed.has("view") || changed.has("child")) {
        draw(world);
        ask(world);
      }
    },
  };
}

/** Explain a length in words. @param {number} length */
function meaning(length) {
  if (length < 0.1) return "Short: this capsule's part is not present here.";
  if (length < 0.5) return "Medium: this capsule's part may be present here.";
  if (length < 0.95) return "Long: this capsule's part is present here. The direction describes it.";
  return "Near 1: this capsule's part is present here. Move the digit and check that the length changes. If a capsule is always long, only its direction carries information.";
}

// Routing in each iteration: votes, couplings, and the class of each position.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {ChildResponse} from "../wire.ts" */
import { api, latest, scene } from "../api.js";
import { places } from "../drawings/arrows.js";
import { bars } from "../drawings/bars.js";
import { chips } from "../drawings/chips.js";
import { drawCloud, frame } from "../drawings/cloud.js";
import { drawFlow, drawStrip } from "../drawings/couplings.js";
import { inspector } from "../drawings/inspector.js";
import { drawTerritory } from "../drawings/territory.js";
import { h, number, replace } from "../dom.js";
import { equation, pieces, prose } from "../maths.js";
import { begin, canvasOf, colours, placeOn } from "../paint.js";
import { wordsOf } from "../routings.js";
import { change, current, focusOf, mostHeard, shownStep } from "../state.js";

const CLOUD = { width: 520, height: 380 };
const FLOW = { width: 520, height: 300 };
const MAP = 320;
const SECONDS_PER_ITERATION = 1.1;

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function routingView(home, fail) {
  const { info } = current();
  const { geometry, max_iterations, class_names, measure, absent } = info;
  const isDynamic = info.routing === "dynamic";
  const words = wordsOf(info);
  const stronger = measure === "length" ? "longer" : "more active";
  const area = geometry.grid[0] * geometry.grid[1];
  const stripSize = { width: Math.min(960, Math.max(320, home.clientWidth - 60)), height: 120 };
  const cloud = canvasOf(CLOUD.width, CLOUD.height, "Votes in pose space");
  const flow = canvasOf(FLOW.width, FLOW.height, "Couplings through the iterations");
  const strip = canvasOf(stripSize.width, stripSize.height, "All couplings of this iteration");
  const land = canvasOf(MAP, MAP, "Positions and the class they support");
  const legend = h("figcaption", {});
  const map = absent.places ? h("p", { class: "notice" }, absent.places) : h("figure", {}, land, legend);
  const facts = h("div", { class: "facts" });
  const classes = chips(current(), { colours: true });
  const transport = player();
  const matrix = inspector({ side: 150, label: "W" });
  const u = bars(150, 60, "u");
  const vote = bars(220, 60, "û");
  const childTitle = h("h3", {});
  const rowsNote = h("p", { class: "quiet", hidden: true }, "Poses are matrices, drawn row by row: W times a row of the child gives this row of the vote.");
  const table = h("div", { class: "scroll", tabindex: 0 });
  /** The drawn iteration, fractional while the animation plays. */
  let step = shownStep(current());
  let playing = 0;

  replace(
    home,
    h("h2", {}, isDynamic ? "Routing: votes that agree gain weight" : `Votes and routing: ${info.routing}`),
    h("div", { class: "row wide" }, classes.element, transport.element),
    h("div", { class: "columns" },
      h("figure", { class: "big" }, cloud, h("figcaption", {}, ...pieces(`Each dot is one child's vote {vote}. Its size is its coupling {c_ij}. Its horizontal position is its component along {v_j}: its agreement. The dashed ellipse shows where the weighted votes are. The arrow is {v_j}: ${words.pose}. Click a dot to select that child.`))),
      h("div", { class: "text" },
        prose(`A child {u_i} predicts the pose of each class: its vote {vote} = {W} {u_i}. ${words.how}`),
        facts)),
    h("div", { class: "columns" },
      h("figure", { class: "big" }, flow, h("figcaption", {}, ...pieces(`The coupling {c_ij} of every child with this class, in each iteration. Darker lines are ${stronger} capsules. The selected child is marked.`))),
      map),
    h("figure", { class: "full" }, strip, h("figcaption", {}, `One column per child: the class with its largest final coupling, and by how much this coupling exceeds an equal share. Darker columns are ${stronger} capsules. Note the scale: trained networks often change their couplings only a little.`)),
    h("section", { class: "child-detail" },
      childTitle,
      h("div", { class: "sum" },
        figure(matrix.canvas, "{W}"), h("span", { class: "op" }, "·"), figure(u.canvas, "{u_i}"), h("span", { class: "op" }, "="), figure(vote.canvas, "{vote}")),
      rowsNote,
      table),
  );
  cloud.addEventListener("click", (event) => pickVote(placeOn(cloud, event)));
  land.addEventListener("click", (event) => pickPlace(placeOn(land, event)));

  function player() {
    const play = h("button", { type: "button", id: "play", class: "main", onclick: toggle }, "Play");
    const back = h("button", { type: "button", id: "step-back", "aria-label": "One iteration back", onclick: () => go(current().at - 1) }, "◀");
    const on = h("button", { type: "button", id: "step-on", "aria-label": "One iteration forward", onclick: () => go(current().at + 1) }, "▶");
    const at = /** @type {HTMLInputElement} */ (h("input", { type: "range", id: "at", min: 1, max: 3, step: 1, "aria-label": "Iteration shown", oninput: () => go(at.valueAsNumber) }));
    const many = /** @type {HTMLSelectElement} */ (
      h("select", { id: "iterations", "aria-label": "Routing iterations r", onchange: () => { stop(); change({ iterations: Number(many.value), at: Number(many.value) }); } },
        ...Array.from({ length: max_iterations }, (_, k) => h("option", { value: k + 1 }, String(k + 1))))
    );
    const label = h("output", {});
    const onePass = h("p", { class: "quiet" }, "This routing is one pass: there are no iterations to play.");
    return {
      element: max_iterations === 1 ? onePass : h("div", { class: "transport", role: "group", "aria-label": "Iterations" }, play, back, at, on, label, h("label", { class: "inline" }, "of r = ", many)),
      /** @param {World} world */
      update(world) {
        at.max = String(world.iterations);
        at.value = String(world.at);
        many.value = String(world.iterations);
        label.textContent = String(world.at);
        play.textContent = playing ? "Pause" : "Play";
      },
    };
  }

  /** @param {number} wanted */
  function go(wanted) {
    stop();
    change({ at: Math.min(current().iterations, Math.max(1, wanted)) });
  }

  function stop() {
    if (playing) cancelAnimationFrame(playing);
    playing = 0;
  }

  function toggle() {
    if (playing) {
      stop();
      change({ at: Math.round(step) + 1 });
      return;
    }
    const from = step >= current().iterations - 1 ? 0 : step;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      change({ at: from === step ? current().at + 1 : 1 });
      return;
    }
    /** @type {number | null} */
    let start = null;
    const frame = (/** @type {number} */ now) => {
      start ??= now;
      // A smooth step between whole numbers, with a pause at each iteration.
      const time = from + (now - start) / 1000 / SECONDS_PER_ITERATION;
      const end = current().iterations - 1;
      const whole = Math.floor(time);
      const part = Math.min(1, (time - whole) * 1.6);
      step = Math.min(end, whole + part * part * (3 - 2 * part));
      const at = Math.min(end, Math.round(step)) + 1;
      if (at !== current().at) change({ at });
      drawMoving(current());
      if (step >= end) stop();
      else playing = requestAnimationFrame(frame);
      transport.update(current());
    };
    playing = requestAnimationFrame(frame);
  }

  /** @param {{x: number, y: number}} pointer */
  function pickVote(pointer) {
    const trace = current().trace;
    if (!trace) return;
    const points = trace.cloud.points.data;
    const { toX, toY } = frame(trace.cloud, CLOUD.width, CLOUD.height, 30);
    let [best, nearest] = [0, Infinity];
    for (let i = 0; i < points.length / 2; i++) {
      const distance = Math.hypot(toX(points[2 * i]) - pointer.x, toY(points[2 * i + 1]) - pointer.y);
      if (distance < nearest) [best, nearest] = [i, distance];
    }
    change({ child: best });
  }

  /** The child of a place that the class listens to most. @param {{x: number, y: number}} pointer */
  function pickPlace(pointer) {
    const { trace } = current();
    if (!trace) return;
    const { step: stride, field } = places(geometry);
    const unit = MAP / Math.max(geometry.image_shape[1], geometry.image_shape[2]);
    const at = (/** @type {number} */ value, /** @type {number} */ count) => Math.min(count - 1, Math.max(0, Math.round((value / unit - field / 2) / stride)));
    const place = at(pointer.y, geometry.grid[0]) * geometry.grid[1] + at(pointer.x, geometry.grid[1]);
    change({ child: mostHeard(trace, focusOf(current()), (child) => child % area === place) });
  }

  const ask = latest(
    (/** @type {World} */ world) => api.child({ ...scene(world.digits), iterations: world.iterations, child: world.child, parent: focusOf(world) }),
    (answer, question) => showChild(answer, focusOf(question)),
    fail,
  );

  /** @param {Unpacked<ChildResponse>} answer @param {number} parent */
  function showChild(answer, parent) {
    const palette = colours();
    const [rows, columns] = answer.weight.shape;
    matrix.show({ data: answer.weight.data, rows, columns, colour: palette.pos, negative: palette.neg });
    u.show(answer.u.data, palette.child);
    vote.show(answer.vote.data, palette.vote);
    const where = answer.type === null ? "" : ` (type ${answer.type}, row ${answer.row}, column ${answer.column})`;
    childTitle.textContent = `Child ${answer.child}${where} votes for “${class_names[parent]}”`;
    rowsNote.hidden = answer.u.data.length === columns;
    const [steps, classes] = answer.couplings.shape;
    const cell = (/** @type {number} */ value) => h("td", {}, number(value));
    replace(
      table,
      h("table", { class: "numbers", id: "child-table" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "iteration"), ...["{b_ij}", isDynamic ? (geometry.leaky ? "{c_ij} = softmax({b_ij}, 0)" : "{c_ij} = softmax({b_ij})") : "{c_ij}", "{vote} · {v_j}", ...(isDynamic ? ["next {b_ij} = {b_ij} + {vote} · {v_j}"] : [])].map((text) => h("th", { scope: "col" }, ...pieces(text))))),
        h("tbody", {}, ...Array.from({ length: steps }, (_, t) => {
          const b = answer.logits.data[t * classes + parent];
          return h("tr", { class: t + 1 === current().at ? "chosen" : "" }, h("th", { scope: "row" }, t + 1), cell(b), cell(answer.couplings.data[t * classes + parent]), cell(answer.agreement[t]), isDynamic && cell(b + answer.agreement[t]));
        }))),
    );
  }

  /** Draw the animated parts. @param {Readonly<World>} world */
  function drawMoving(world) {
    drawCloud(begin(cloud).context, world, { ...CLOUD, step, chosen: world.child });
    drawFlow(begin(flow).context, world, FLOW.width, FLOW.height, step);
    drawStrip(begin(strip).context, world, stripSize.width, stripSize.height, step);
    if (absent.places) return;
    const owners = drawTerritory(begin(land).context, world, { side: MAP, step, place: world.child % area });
    replace(legend, "The colour is the class that each position supports; the size is its contribution to ‖s‖. ",
      ...owners.slice(0, 4).map(({ k, share }) => h("span", { class: "key", "--hue": `var(--k${k % 10})` }, `${class_names[k]} ${Math.round(share * 100)} %`)));
  }

  /** @param {Readonly<World>} world */
  function showFacts(world) {
    const { trace } = world;
    if (!trace) return;
    const t = shownStep(world);
    const k = focusOf(world);
    const classes = geometry.classes;
    const at = (/** @type {{data: ArrayLike<number>}} */ tensor, /** @type {number} */ time) => tensor.data[time * classes + k];
    const last = trace.couplings.shape[0] - 1;
    replace(
      facts,
      ...(isDynamic && trace.sums
        ? [
          equation(`iteration ${t + 1}:  ‖{s_j}‖ = ‖Σ {c_ij} {vote}${geometry.bias ? " + bias" : ""}‖ = [parent ${number(at(trace.sums, t))}]`),
          equation(`‖{v_j}‖ = ‖squash({s_j})‖ = [parent ${number(at(trace.iteration_lengths, t))}]`),
        ]
        : [equation(`${max_iterations > 1 ? `iteration ${t + 1}:  ` : ""}${measure} of “${class_names[k]}” = [parent ${number(at(trace.iteration_lengths, t))}]`)]),
      h("dl", {},
        h("dt", {}, "spread of the weighted votes"), h("dd", {}, `${number(trace.cloud.rms[0])} → ${number(trace.cloud.rms[t])}`),
        h("dt", {}, "entropy of couplings (1: uniform)"), h("dd", {}, `${number(trace.entropy[0])} → ${number(trace.entropy[t])}`),
        h("dt", {}, "share of the votes' squares in this plane"), h("dd", {}, `${Math.round(trace.cloud.shown * 100)} %`)),
      ...(last > 0 ? [h("p", { class: "quiet" }, verdict(at(trace.iteration_lengths, 0), at(trace.iteration_lengths, last)))] : []),
    );
  }

  /** @param {number} first @param {number} last */
  function verdict(first, last) {
    if (!isDynamic) return `From the first to the last iteration the ${measure} of this class goes from ${number(first)} to ${number(last)}.`;
    if (last > first + 0.02) return `From the first to the last iteration this class capsule grows from ${number(first)} to ${number(last)}: its votes agree.`;
    if (last < first - 0.02) return `This class capsule shrinks from ${number(first)} to ${number(last)}: its votes disagree, and the couplings move to other classes.`;
    return `This class capsule hardly changes (${number(first)} to ${number(last)}).`;
  }

  return {
    update(world, changed) {
      if (!playing) step = shownStep(world);
      transport.update(world);
      if (changed.has("trace") || changed.has("at") || changed.has("focus") || changed.has("child") || changed.has("view")) {
        classes.update(world);
        drawMoving(world);
        showFacts(world);
        if (!playing || changed.has("trace")) ask(world);
      }
    },
    close: stop,
  };
}

/** @param {HTMLElement} canvas @param {string} text */
function figure(canvas, text) {
  return h("figure", {}, canvas, h("figcaption", {}, ...pieces(text)));
}

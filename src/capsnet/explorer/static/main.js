// Start the page: load the model's description, restore the state from the link, and redraw on changes.
/** @import {Panel, View, World} from "./types.ts" */
import { Refusal, api, engine, latest, scene } from "./api.js";
import { find, h, number, percent, replace } from "./dom.js";
import { showAnswer } from "./answer.js";
import { finished, started } from "./busy.js";
import { inputPanel } from "./input.js";
import { fromHash, runOf, toHash } from "./link.js";
import { overviewPanel, titleOf } from "./overview.js";
import { forgetColours } from "./paint.js";
import { begin, change, current, emptyDigit, exampleDigit, listen, mostHeard } from "./state.js";
import { tourPanel } from "./tour.js";
import { ablationView } from "./views/ablation.js";
import { classesView } from "./views/classes.js";
import { controlView } from "./views/control.js";
import { conv1View } from "./views/conv1.js";
import { pixelsView } from "./views/pixels.js";
import { primaryView } from "./views/primary.js";
import { reconstructionView } from "./views/reconstruction.js";
import { routingView } from "./views/routing.js";

/** @type {Record<View, (home: HTMLElement, fail: (error: unknown) => void) => Panel>} */
const VIEWS = {
  input: pixelsView,
  conv1: conv1View,
  primary: primaryView,
  routing: routingView,
  classes: classesView,
  reconstruction: reconstructionView,
  control: controlView,
  ablation: ablationView,
};
const EVERYTHING = /** @type {Set<keyof World>} */ (
  new Set(["digits", "active", "tool", "view", "iterations", "at", "focus", "child", "spot", "pose", "sheet", "parameter", "tour", "info", "examples", "trace"])
);

let hideProblem = 0;

/** @param {unknown} error */
function fail(error) {
  const problem = find("#problem");
  problem.textContent = error instanceof Refusal ? error.message : engine.unreachable;
  problem.hidden = false;
  window.clearTimeout(hideProblem);
  hideProblem = window.setTimeout(() => (problem.hidden = true), 8000);
  if (!(error instanceof Refusal || error instanceof TypeError)) throw error;
}

async function start() {
  const wanted = runOf(location.hash);
  const info = await api.model(wanted).catch((error) => {
    fail(error); // the link names another model: show the message and the served model
    return api.model(null);
  });
  const examples = await api.examples();
  const { geometry } = info;
  const iterations = Math.min(geometry.iterations, info.max_iterations);
  /** @type {World} */
  const world = {
    info, examples, trace: null, traced: [], control: null,
    digits: [], active: 0, tool: "draw", view: "routing", iterations, at: iterations, focus: null,
    child: -1, spot: { channel: info.overview_channels[0] ?? 0, row: Math.floor(geometry.maps[0] / 2), column: Math.floor(geometry.maps[1] / 2) },
    pose: null, sheet: false, parameter: "rotation", tour: null,
  };
  begin(world);
  // Start with a four: it has strokes in all directions.
  world.digits = [examples.labels.length ? exampleDigit(Math.max(0, examples.labels.findIndex(([label]) => label === 4))) : emptyDigit()];
  Object.assign(world, fromHash(location.hash, world));
  showAbout();
  engine.about().then((text) => text && replace(find("#engine"), text)).catch(fail);

  const board = inputPanel(find("#board"), find("#tools"), fail);
  const overview = overviewPanel(find("#overview"), world);
  const tour = tourPanel(find("#tour"), find("#tour-start"), fail);
  const detail = detailPanel();
  const trace = latest(
    async (/** @type {World} */ { digits, iterations: r, focus }) => ({ digits, answer: await api.trace({ ...scene(digits), iterations: r, focus }) }),
    ({ digits, answer }) => {
      // Until a capsule is selected, show the one with the largest coupling to the answer.
      if (current().child < 0) change({ child: mostHeard(answer, answer.ranking[0]) });
      change({ trace: answer, traced: digits });
    },
    fail,
  );

  listen((now, changed) => {
    if (changed.has("digits") || changed.has("iterations") || changed.has("focus")) trace(now);
    board.update(now, changed);
    overview.update(now, changed);
    if (changed.has("trace") || changed.has("control") || changed.has("view")) showAnswer(find("#answer"), now);
    detail.update(now, changed);
    tour.update(now, changed);
    saveLink();
    if (changed.has("trace")) {
      const page = document.documentElement.dataset;
      page.traced = String(Number(page.traced ?? 0) + 1);
    }
  });
  find("#copy-link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) saveLink(); // an anchor of the page, for example the skip link's
    else if (location.hash !== toHash(current())) change({ ...fromHash(location.hash, current()) });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    forgetColours();
    const { trace: shown, examples: same, at } = current();
    change({ trace: shown, examples: same, at });
  });
  change(Object.fromEntries([...EVERYTHING].filter((name) => name !== "trace").map((name) => [name, world[name]])));
}

/** The detail of the open stage. It is built when the stage opens and removed when it closes. */
function detailPanel() {
  const home = find("#detail");
  /** @type {{view: View, panel: Panel} | null} */
  let open = null;
  return {
    /** @param {World} world @param {Set<keyof World>} changed */
    update(world, changed) {
      if (!world.trace) return;
      if (open?.view !== world.view) {
        open?.panel.close?.();
        const reason = world.info.absent[world.view];
        open = { view: world.view, panel: reason ? notice(home, world.view, reason) : VIEWS[world.view](home, fail) };
        home.setAttribute("aria-labelledby", `tab-${world.view}`);
        home.dataset.view = world.view;
        open.panel.update(world, EVERYTHING);
      } else {
        open.panel.update(world, changed);
      }
    },
  };
}

/** Say why a part of the page does not apply to this model.
 *  @param {HTMLElement} home @param {View} view @param {string} reason @returns {Panel} */
function notice(home, view, reason) {
  replace(home, h("h2", {}, titleOf(view)), h("p", { class: "notice" }, reason));
  return { update() {} };
}

let saving = 0;

/** Save with a delay: browsers limit how often a page may change its address. */
function saveLink() {
  window.clearTimeout(saving);
  saving = window.setTimeout(() => history.replaceState(null, "", toHash(current())), 200);
}

async function copyLink() {
  const link = new URL(toHash(current()), location.href).href;
  history.replaceState(null, "", link);
  const button = find("#copy-link");
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
  window.setTimeout(() => (button.textContent = "Copy link"), 1800);
}

function showAbout() {
  const { info } = current();
  const error = info.test_error === null ? "" : `, test error ${percent(info.test_error, 2)}${info.tested_on ? ` on ${info.tested_on}` : ""}`;
  replace(find("#about"), h("b", {}, info.run), ` · ${info.parameters < 1e6 ? info.parameters.toLocaleString("en") : `${number(info.parameters / 1e6, 1)} million`} parameters${error}`);
}

started();
start().catch(fail).finally(finished);

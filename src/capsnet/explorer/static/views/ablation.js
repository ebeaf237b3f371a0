// Compare different numbers of routing iterations, for the image and on the test set.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {AblationResponse, TestsetResponse} from "../wire.ts" */
import { api, latest, scene } from "../api.js";
import { h, number, percent, replace } from "../dom.js";
import { prose } from "../maths.js";
import { current } from "../state.js";

const POLL = 700;

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function ablationView(home, fail) {
  const { class_names, geometry, control, measure } = current().info;
  const top = measure === "length" ? "longest capsule" : "most active capsule";
  const image = h("div", { class: "scroll", tabindex: 0 });
  const set = h("div", { class: "scroll", tabindex: 0 });
  const imageWords = h("div", { "aria-live": "polite" });
  const setWords = h("div", { "aria-live": "polite" });
  const progress = /** @type {HTMLProgressElement} */ (h("progress", { max: 1, value: 0, "aria-label": "Test set measured" }));
  let timer = 0;
  replace(
    home,
    h("h2", {}, "Does routing matter here?"),
    prose(`Here you can compare the network with and without routing by agreement. With one iteration all couplings are uniform: each child sends equally to all classes. This network was trained with r = ${geometry.iterations}. A network trained with uniform couplings learns other weights and may be equally accurate: \`capsnet reproduce routing-iterations\` trains and compares both.`.replaceAll("`", "")),
    h("h3", {}, "This image"), image, imageWords,
    h("h3", {}, "The test set"), progress, set, setWords,
  );

  const ask = latest((/** @type {World} */ world) => api.ablation(scene(world.digits)), showImage, fail);

  /** @param {Unpacked<AblationResponse>} answer */
  function showImage({ rows, dead_children }) {
    replace(image, table(
      ["iterations", "answer", `its ${measure}`, "second", `its ${measure}`, "entropy of couplings", "mean change of a coupling"],
      rows.map(({ iterations, ranking: [best, second], lengths, entropy, moved }) => ({
        own: iterations === geometry.iterations,
        cells: [iterations === 1 ? "1, uniform" : iterations, class_names[best], meter(lengths[best]), class_names[second], meter(lengths[second]), number(entropy), number(moved)],
      })),
    ));
    const [uniform] = rows;
    const own = rows.find(({ iterations }) => iterations === geometry.iterations) ?? rows[rows.length - 1];
    const same = uniform.ranking[0] === own.ranking[0];
    const gap = (/** @type {typeof own} */ row) => row.lengths[row.ranking[0]] - row.lengths[row.ranking[1]];
    replace(imageWords, h("p", {}, same ? `The answer is the same with uniform couplings. ` : `With uniform couplings the answer would be “${class_names[uniform.ranking[0]]}” instead of “${class_names[own.ranking[0]]}”. `,
      `The ${measure} of the ${top} exceeds the second by ${number(gap(uniform), 2)} without routing and by ${number(gap(own), 2)} with r = ${own.iterations}. `,
      `${percent(dead_children)} of the children are inactive for this image (below 0.01).`));
  }

  async function poll() {
    try {
      const answer = await api.testset();
      showSet(answer);
      if (answer.rows.length === 0 && answer.total > 0) timer = window.setTimeout(poll, POLL);
    } catch (error) {
      fail(error);
    }
  }

  /** @param {Unpacked<TestsetResponse>} answer */
  function showSet(answer) {
    progress.hidden = answer.rows.length > 0 || answer.total === 0;
    progress.value = answer.total ? answer.done / answer.total : 0;
    if (answer.rows.length === 0) {
      replace(setWords, h("p", { class: "quiet" }, answer.total ? `Measuring in the background: ${answer.done.toLocaleString("en")} of ${answer.total.toLocaleString("en")} images…` : "The test set of this model is not on this machine."));
      return;
    }
    replace(set, table(
      ["iterations", "wrong", "error", "95 % interval", "changed answers", top, "second", "entropy of couplings"],
      answer.rows.map((row) => ({
        own: row.iterations === geometry.iterations,
        cells: [row.iterations === 1 ? "1, uniform" : row.iterations, `${row.errors} of ${row.n.toLocaleString("en")}`, percent(row.error, 2), row.interval.map((x) => percent(x, 2)).join(" to "), row.changed, meter(row.winner), meter(row.runner_up), number(row.entropy)],
      })),
    ));
    replace(setWords, h("p", {}, summary(answer)), h("p", { class: "quiet" }, answer.source));
  }

  /** @param {Unpacked<TestsetResponse>} answer */
  function summary({ rows, dead_children, control_error, control_interval }) {
    const [uniform] = rows;
    const own = rows.find(({ iterations }) => iterations === geometry.iterations) ?? rows[rows.length - 1];
    const apart = uniform.interval[0] > own.interval[1] || own.interval[0] > uniform.interval[1];
    const words = [
      `Uniform couplings: ${uniform.errors} wrong; r = ${own.iterations}: ${own.errors}.`,
      apart ? (uniform.error > own.error ? "Routing makes this network more accurate: the intervals do not overlap." : "Routing makes this network less accurate: the intervals do not overlap.")
        : `The intervals overlap: on these ${own.n.toLocaleString("en")} images the difference in error may be chance.`,
      `The mean ${measure} of the ${top} is ${number(uniform.winner, 2)} without and ${number(own.winner, 2)} with routing.`,
      `${percent(dead_children ?? 0)} of the children are below 0.01 for every image.`,
    ];
    if (control && control_error !== null && control_interval) words.push(`The max-pooling CNN on the same images: ${percent(control_error, 2)} (${control_interval.map((x) => percent(x, 2)).join(" to ")}).`);
    return words.join(" ");
  }

  return {
    update(world, changed) {
      if (changed.has("trace") || changed.has("view")) ask(world);
      if (changed.has("view")) poll();
    },
    close: () => window.clearTimeout(timer),
  };
}

/** @param {string[]} head @param {Array<{own: boolean, cells: Array<string | number | Node>}>} rows */
function table(head, rows) {
  return h("table", { class: "numbers" },
    h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, ...rows.map(({ own, cells: [first, ...others] }) => h("tr", { class: own ? "chosen" : "" }, h("th", { scope: "row" }, first), ...others.map((cell) => h("td", {}, cell))))));
}

/** @param {number} length */
function meter(length) {
  return h("span", { class: "bar", "--length": length }, number(length, 2));
}

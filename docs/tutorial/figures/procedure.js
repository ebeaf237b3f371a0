// Procedure 1 on a real digit, one iteration at a time.
import { digits, engine, h, layer, number, replace, slider, trace } from "./common.js";

const ROUNDS = 5;

export async function figure() {
  const { pixels } = await digits();
  const { geometry } = await engine.ask("model", {});
  const answer = await trace([layer(pixels(4))], ROUNDS);
  const k = answer.ranking[0];
  const { classes, in_caps: children } = geometry;
  const table = h("div", { class: "scroll", tabindex: 0 });

  function choose(at) {
    const t = at - 1;
    let [least, most, sum] = [1, 0, 0];
    for (let i = 0; i < children; i++) {
      const c = answer.couplings.data[(t * children + i) * classes + k];
      [least, most, sum] = [Math.min(least, c), Math.max(most, c), sum + c];
    }
    const row = (line, what, value) => h("tr", {}, h("th", { scope: "row" }, line), h("td", {}, what), h("td", {}, value));
    replace(table, h("table", { "data-round": at, "data-length": answer.iteration_lengths.data[t * classes + k] },
      h("tbody", {},
        row("line 4", `couplings c of ${children} children with “${k}”: least, mean, most`, `${number(least, 4)}, ${number(sum / children, 4)}, ${number(most, 4)}`),
        row("line 5", "‖s‖, the length of the weighted sum of votes", number(answer.sums.data[t * classes + k])),
        row("line 6", "‖v‖ = ‖squash(s)‖", number(answer.iteration_lengths.data[t * classes + k])),
        row("line 7", "entropy of the couplings; 1 is uniform", number(answer.entropy[t], 4)))));
  }

  choose(1);
  return [slider({ label: "iteration", min: 1, max: ROUNDS, step: 1, value: 1, digits: 0, oninput: choose }).element, table];
}

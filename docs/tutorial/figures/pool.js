// A real map of Conv1, and a shuffled one that pools to the same.
import { asking, digits, drawn, engine, h, layer, panel, percent, slider } from "./common.js";

export async function figure() {
  const { pixels } = await digits();
  const { overview_channels: channels } = await engine.ask("model", {});
  const layers = [layer(pixels(4))];
  const panels = ["a map of Conv1", "the same values, moved inside their windows", "the first, pooled", "the second, pooled"].map((label) => panel(label, 140));
  const words = h("p", { class: "verdict", "aria-live": "polite" });
  /** @type {any} */
  let answer;
  const ask = await asking(channels[0], (channel) => engine.ask("pool", { layers, channel, size: 2 }), (found) => { answer = found; draw(); }, words);

  function draw() {
    const max = Math.max(...answer.map.data, 1e-6);
    for (const [at, name] of ["map", "shuffled", "pooled", "shuffled_pooled"].entries()) panels[at].show({ shape: [1, ...answer[name].shape], data: answer[name].data }, { max });
    const gap = Math.max(...answer.pooled.data.map((value, at) => Math.abs(value - answer.shuffled_pooled.data[at])));
    const differ = answer.map.data.filter((value, at) => value !== answer.shuffled.data[at]).length / answer.map.data.length;
    words.textContent = `${percent(differ, 0)} of the values are somewhere else, the strongest by ${answer.moved.toFixed(1)} pixels on average. Largest difference after pooling: ${gap}.`;
    words.dataset.gap = String(gap);
  }

  drawn(draw);
  const choose = slider({ label: "map", min: 0, max: channels.length - 1, step: 1, value: 0, digits: 0, oninput: (at) => ask(channels[at]) });
  return [h("div", { class: "panels" }, ...panels.map(({ element }) => element)), words, choose.element];
}

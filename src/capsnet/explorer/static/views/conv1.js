// Conv1: all its maps, and the arithmetic of one value.
/** @import {Panel, World, Unpacked} from "../types.ts" */
/** @import {MapsResponse, PixelResponse} from "../wire.ts" */
import { api, latest, scene } from "../api.js";
import { inspector } from "../drawings/inspector.js";
import { h, number, replace } from "../dom.js";
import { equation, pieces, prose } from "../maths.js";
import { begin, canvasOf, colours, ink, largest, placeOn, rgba, size } from "../paint.js";
import { change, current } from "../state.js";

const MOSAIC = 480;

/** @param {HTMLElement} home @param {(error: unknown) => void} fail @returns {Panel} */
export function conv1View(home, fail) {
  /** @type {Unpacked<MapsResponse> | null} */
  let maps = null;
  const mosaic = canvasOf(MOSAIC, MOSAIC, "All maps of Conv1");
  mosaic.tabIndex = 0;
  mosaic.setAttribute("role", "application");
  mosaic.setAttribute("aria-roledescription", "mosaic of maps, arrow keys choose one");
  const map = inspector({ side: 300, label: "One map", onpick: (row, column) => change({ spot: { ...current().spot, row, column } }) });
  const parts = ["patch", "kernel", "products"].map((name) => ({ name, grid: inspector({ side: 92, label: name }) }));
  const words = h("div", { "aria-live": "polite" });
  const which = h("h3", {});
  replace(
    home,
    h("h2", {}, "Conv1: the same kernels at every position"),
    h("div", { class: "columns" },
      h("figure", {}, mosaic, h("figcaption", {}, "All maps of this image. Click a map, or focus the mosaic and use the arrow keys.")),
      h("div", { class: "text" },
        prose("One kernel {w} slides over the image and makes one map. The map is dark where the image is similar to the kernel. How dark a pixel is says *whether* an edge is present. *Where* the edge is, only the pixel's position says."),
        which, h("figure", { class: "narrow" }, map.canvas, h("figcaption", {}, "Click a position in this map to see its arithmetic below.")),
        h("div", { class: "sum" },
          figure(parts[0].grid.canvas, "input patch ", "patch"), h("span", { class: "op" }, "·"),
          figure(parts[1].grid.canvas, "kernel ", "w"), h("span", { class: "op" }, "="),
          figure(parts[2].grid.canvas, "products", null)),
        words)),
  );
  mosaic.addEventListener("click", (event) => {
    const { x, y } = placeOn(mosaic, event);
    const { across, cell } = layout(current());
    pickChannel(Math.floor(y / cell) * across + Math.floor(x / cell));
  });
  mosaic.addEventListener("keydown", (event) => {
    const { across } = layout(current());
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    pickChannel(current().spot.channel + step);
  });

  /** @param {number} channel */
  function pickChannel(channel) {
    if (channel >= 0 && channel < current().info.geometry.stem_channels) change({ spot: { ...current().spot, channel } });
  }

  const askMaps = latest(
    (/** @type {World} */ world) => api.maps(scene(world.digits)),
    (answer) => {
      maps = answer;
      drawMaps(current());
    },
    fail,
  );
  const askPixel = latest((/** @type {World} */ world) => api.pixel({ ...scene(world.digits), ...world.spot }), showPixel, fail);

  /** @param {Readonly<World>} world */
  function drawMaps(world) {
    if (!maps) return;
    const { shape, data } = maps.maps;
    const [channels, rows, columns] = shape;
    const { across, cell, tall } = layout(world);
    size(mosaic, MOSAIC, tall);
    const { context } = begin(mosaic);
    const max = largest(data) || 1;
    for (let k = 0; k < channels; k++) {
      ink(context, data, {
        rows, columns, offset: k * rows * columns, max, colour: colours().input,
        x: (k % across) * cell + 1, y: Math.floor(k / across) * cell + 1, width: cell - 2, height: cell - 2,
      });
    }
    const { channel, row, column } = world.spot;
    context.strokeStyle = rgba(colours().parent);
    context.lineWidth = 2;
    context.strokeRect((channel % across) * cell, Math.floor(channel / across) * cell, cell, cell);
    map.show({ data, rows, columns, offset: channel * rows * columns, colour: colours().input, cursor: { row, column } });
    which.textContent = `Map ${channel} of ${channels}`;
  }

  /** @param {Unpacked<PixelResponse>} answer */
  function showPixel(answer) {
    const palette = colours();
    for (const { name, grid } of parts) {
      const tensor = name === "patch" ? answer.patch : name === "kernel" ? answer.kernel : answer.products;
      const [, rows, columns] = tensor.shape;
      grid.show({ data: tensor.data, rows, columns, colour: name === "patch" ? palette.input : palette.pos, negative: palette.neg });
    }
    const raw = answer.dot + answer.bias;
    replace(
      words,
      equation("{a} = relu( Σ {w} · {patch} + {bias} )"),
      equation(`= relu( ${number(answer.dot)} + ${number(answer.bias)} ) = [input ${number(answer.value)}]`),
      h("p", { class: "quiet" }, raw < 0 ? "The sum is negative, so relu makes it 0: the patch does not match the kernel." : "The sum is positive, so relu keeps it."),
      ...(answer.patch.shape[0] > 1 ? [h("p", { class: "quiet" }, `The pictures show the first of ${answer.patch.shape[0]} channels; the sum is over all of them.`)] : []),
    );
  }

  return {
    update(world, changed) {
      if (changed.has("trace") || changed.has("view")) askMaps(world);
      if (changed.has("trace") || changed.has("view") || changed.has("spot")) askPixel(world);
      if (changed.has("spot")) drawMaps(world);
    },
  };
}

/** @param {Readonly<World>} world */
function layout({ info: { geometry } }) {
  const across = Math.ceil(Math.sqrt(geometry.stem_channels));
  const cell = MOSAIC / across;
  return { across, cell, tall: Math.ceil(geometry.stem_channels / across) * cell };
}

/** @param {HTMLElement} canvas @param {string} text @param {string | null} name */
function figure(canvas, text, name) {
  return h("figure", {}, canvas, h("figcaption", {}, ...pieces(name ? `${text}{${name}}` : text)));
}

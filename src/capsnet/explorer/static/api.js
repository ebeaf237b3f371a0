// The page's questions. An engine answers them: the server, or ONNX Runtime in this browser.
/** @import * as Api from "./wire.ts" */
/** @import {Digit, Engine, Unpacked} from "./types.ts" */
import { finished, started } from "./busy.js";

export { Refusal } from "./engines/refusal.js";

const inBrowser = document.documentElement.dataset.engine === "browser";

/** @type {Engine} */
export const engine = inBrowser ? (await import("./engines/browser.js")).engine : (await import("./engines/server.js")).engine;

/**
 * Ask the engine; the page counts as busy until the answer is there.
 * @template T
 * @param {string} name
 * @param {object} [body]
 * @returns {Promise<Unpacked<T>>}
 */
async function ask(name, body = {}) {
  started();
  try {
    return /** @type {Unpacked<T>} */ (await engine.ask(name, body));
  } finally {
    finished();
  }
}

/**
 * @param {Digit[]} digits
 * @returns {{layers: Api.Layer[]}}
 */
export function scene(digits) {
  return {
    layers: digits.map(({ pixels, motion }) => ({
      pixels: Array.from(pixels, (value) => value / 255),
      transform: motion,
    })),
  };
}

export const api = {
  /** @param {string | null} run @returns {Promise<Api.ModelInfo>} */
  model: (run) => ask("model", run === null ? {} : { run }),
  /** @returns {Promise<Unpacked<Api.Examples>>} */
  examples: () => ask("examples"),
  /** @param {Api.TraceRequest} body @returns {Promise<Unpacked<Api.TraceResponse>>} */
  trace: (body) => ask("trace", body),
  /** @param {Api.Scene} body @returns {Promise<Unpacked<Api.MapsResponse>>} */
  maps: (body) => ask("maps", body),
  /** @param {Api.PixelRequest} body @returns {Promise<Unpacked<Api.PixelResponse>>} */
  pixel: (body) => ask("pixel", body),
  /** @param {Api.ChildRequest} body @returns {Promise<Unpacked<Api.ChildResponse>>} */
  child: (body) => ask("child", body),
  /** @param {Api.PoolRequest} body @returns {Promise<Unpacked<Api.PoolResponse>>} */
  pool: (body) => ask("pool", body),
  /** @param {Api.CapsuleRequest} body @returns {Promise<Unpacked<Api.DecodeResponse>>} */
  decode: (body) => ask("decode", body),
  /** @param {Api.CapsuleRequest} body @returns {Promise<Unpacked<Api.SheetResponse>>} */
  sheet: (body) => ask("sheet", body),
  /** @param {number} number @returns {Promise<Unpacked<Api.MeaningsResponse>>} */
  meanings: (number) => ask("meanings", { number }),
  /** @param {Api.SweepRequest} body @returns {Promise<Unpacked<Api.SweepResponse>>} */
  sweep: (body) => ask("sweep", body),
  /** @param {Api.Scene} body @returns {Promise<Unpacked<Api.AblationResponse>>} */
  ablation: (body) => ask("ablation", body),
  /** @param {Api.AgentsRequest} body @returns {Promise<Unpacked<Api.AgentsResponse>>} */
  agents: (body) => ask("agents", body),
  /** @returns {Promise<Unpacked<Api.TestsetResponse>>} */
  testset: () => ask("testset"),
  /** @param {Blob} file @returns {Promise<Unpacked<Api.ImageResponse>>} */
  picture: (file) => ask("picture", { file }),
};

/**
 * Ask one question at a time, and of those that pile up meanwhile only the last.
 * @template Q, A
 * @param {(question: Q) => Promise<A>} ask
 * @param {(answer: A, question: Q) => void} use
 * @param {(error: unknown) => void} fail
 * @returns {(question: Q) => void}
 */
export function latest(ask, use, fail) {
  let busy = false;
  /** @type {{question: Q} | null} */
  let waiting = null;
  return async function next(question) {
    if (busy) {
      waiting = { question };
      return;
    }
    busy = true;
    try {
      const answer = await ask(question);
      // Show the answer even if a newer request is waiting, so that the picture keeps moving.
      use(answer, question);
    } catch (error) {
      fail(error);
    } finally {
      busy = false;
      if (waiting) {
        const { question: newer } = waiting;
        waiting = null;
        next(newer);
      }
    }
  };
}

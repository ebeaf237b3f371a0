// Requests to the server. The page itself computes nothing.
/** @import * as Api from "./wire.ts" */
/** @import {Digit, Tensor, Unpacked} from "./types.ts" */
import { finished, started } from "./busy.js";

/** A refused request, with the server's reason. */
export class Refusal extends Error {}

/**
 * @param {Api.Packed} packed
 * @returns {Tensor}
 */
export function unpack({ shape, dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return { shape, data: dtype === "uint8" ? bytes : new Float32Array(bytes.buffer) };
}

/**
 * @template T
 * @param {T} answer
 * @returns {Unpacked<T>}
 */
function unpackAll(answer) {
  /** @type {Record<string, unknown>} */
  const result = {};
  for (const [name, value] of Object.entries(/** @type {object} */ (answer))) {
    if (value && typeof value === "object" && !Array.isArray(value)) {
      result[name] = "dtype" in value ? unpack(value) : unpackAll(value);
    } else {
      result[name] = value;
    }
  }
  return /** @type {Unpacked<T>} */ (result);
}

/**
 * @template T
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Unpacked<T>>}
 */
async function call(path, options) {
  started();
  try {
    const response = await fetch(`api/${path}`, options);
    const body = await response.json().catch(() => ({ detail: response.statusText }));
    if (!response.ok) throw new Refusal(body.detail);
    return unpackAll(/** @type {T} */ (body));
  } finally {
    finished();
  }
}

/**
 * @template T
 * @param {string} path
 * @param {object} body
 * @returns {Promise<Unpacked<T>>}
 */
function post(path, body) {
  return call(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
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
  model: (/** @type {string | null} */ run) =>
    /** @type {Promise<Api.ModelInfo>} */ (fetchModel(run)),
  /** @returns {Promise<Unpacked<Api.Examples>>} */
  examples: () => call("examples"),
  /** @param {Api.TraceRequest} body @returns {Promise<Unpacked<Api.TraceResponse>>} */
  trace: (body) => post("trace", body),
  /** @param {Api.Scene} body @returns {Promise<Unpacked<Api.MapsResponse>>} */
  maps: (body) => post("maps", body),
  /** @param {Api.PixelRequest} body @returns {Promise<Unpacked<Api.PixelResponse>>} */
  pixel: (body) => post("pixel", body),
  /** @param {Api.ChildRequest} body @returns {Promise<Unpacked<Api.ChildResponse>>} */
  child: (body) => post("child", body),
  /** @param {Api.PoolRequest} body @returns {Promise<Unpacked<Api.PoolResponse>>} */
  pool: (body) => post("pool", body),
  /** @param {Api.CapsuleRequest} body @returns {Promise<Unpacked<Api.DecodeResponse>>} */
  decode: (body) => post("decode", body),
  /** @param {Api.CapsuleRequest} body @returns {Promise<Unpacked<Api.SheetResponse>>} */
  sheet: (body) => post("sheet", body),
  /** @param {number} number @returns {Promise<Unpacked<Api.MeaningsResponse>>} */
  meanings: (number) => call(`meanings?number=${number}`),
  /** @param {Api.SweepRequest} body @returns {Promise<Unpacked<Api.SweepResponse>>} */
  sweep: (body) => post("sweep", body),
  /** @param {Api.Scene} body @returns {Promise<Unpacked<Api.AblationResponse>>} */
  ablation: (body) => post("ablation", body),
  /** @param {Api.AgentsRequest} body @returns {Promise<Unpacked<Api.AgentsResponse>>} */
  agents: (body) => post("agents", body),
  /** @returns {Promise<Unpacked<Api.TestsetResponse>>} */
  testset: () => call("testset"),
  /** @param {Blob} file @returns {Promise<Unpacked<Api.ImageResponse>>} */
  picture: (file) =>
    call("picture", {
      method: "POST",
      headers: { "content-type": file.type.startsWith("image/") ? file.type : "application/octet-stream" },
      body: file,
    }),
};

/** @param {string | null} run */
async function fetchModel(run) {
  const response = await fetch(`api/model${run === null ? "" : `?run=${encodeURIComponent(run)}`}`);
  const body = await response.json();
  if (!response.ok) throw new Refusal(body.detail);
  return body;
}

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

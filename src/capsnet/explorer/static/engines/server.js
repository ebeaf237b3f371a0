// The engine behind `capsnet explore`: a server computes, in PyTorch.
/** @import {Engine, Tensor} from "../types.ts" */
/** @import {Packed} from "../wire.ts" */
import { Refusal } from "./refusal.js";

/** Questions without a body; their numbers are in the address. */
const READ = new Set(["model", "examples", "meanings", "testset"]);

/** @param {Packed} packed @returns {Tensor} */
function unpack({ shape, dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return { shape, data: dtype === "uint8" ? bytes : new Float32Array(bytes.buffer) };
}

/** Unpack all arrays of an answer. @param {object} answer @returns {Record<string, unknown>} */
export function unpackAll(answer) {
  /** @type {Record<string, unknown>} */
  const result = {};
  for (const [name, value] of Object.entries(answer)) {
    if (value && typeof value === "object" && !Array.isArray(value)) {
      result[name] = "dtype" in value ? unpack(value) : unpackAll(value);
    } else {
      result[name] = value;
    }
  }
  return result;
}

/** @param {string} name @param {Record<string, any>} body @returns {[string, RequestInit]} */
function request(name, body) {
  if (READ.has(name)) {
    const query = new URLSearchParams(body).toString();
    return [`api/${name}${query && "?"}${query}`, {}];
  }
  if (name === "picture") {
    const type = body.file.type.startsWith("image/") ? body.file.type : "application/octet-stream";
    return ["api/picture", { method: "POST", headers: { "content-type": type }, body: body.file }];
  }
  return [`api/${name}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }];
}

/** @type {Engine} */
export const engine = {
  unreachable: "The explorer's server does not answer. Is `capsnet explore` still running?",
  async ask(name, body) {
    const response = await fetch(...request(name, body));
    const answer = await response.json().catch(() => ({ detail: response.statusText }));
    if (!response.ok) throw new Refusal(answer.detail);
    return unpackAll(answer);
  },
  about: async () => null,
};

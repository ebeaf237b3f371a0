// The engine of an exported site: ONNX Runtime computes in a worker of this page. It writes none of the arithmetic: the
// programs are the library's. This file turns questions into a program's inputs, and its outputs into the answer.
/** @import {Engine, Feed, Form, Manifest, Tensor} from "../types.ts" */
import { fetchFile } from "./files.js";
import { Refusal } from "./refusal.js";
import { unpackAll } from "./server.js";

/** Answers that no visitor changes. */
const READ = new Set(["model", "examples", "meanings", "testset"]);
/** A picture of more pixels is not read. */
const MAX_PIXELS = 64e6;

/** @type {Map<string, Promise<any>>} */
const read = new Map();

/** @param {string} name */
function data(name) {
  const known = read.get(name) ?? fetchFile(new URL(`../data/${name}.json`, import.meta.url)).then((bytes) => JSON.parse(new TextDecoder().decode(bytes)));
  read.set(name, known);
  return known;
}

/** @returns {Promise<Manifest>} */
const manifest = () => data("engine");

/** @type {Worker | null} */
let worker = null;
let count = 0;
/** @type {Map<number, {resolve: (outputs: Record<string, Tensor>) => void, reject: (error: Error) => void}>} */
const waiting = new Map();

/** @param {string} program @param {number} limit @param {Record<string, Feed>} feeds @returns {Promise<Record<string, Tensor>>} */
function compute(program, limit, feeds) {
  if (!worker) {
    worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data: { id, outputs, problem } }) => {
      const asked = waiting.get(id);
      waiting.delete(id);
      if (problem) asked?.reject(new Refusal(problem));
      else asked?.resolve(outputs);
    };
    worker.onerror = () => {
      worker?.terminate();
      worker = null; // the next question starts it again
      for (const asked of waiting.values()) asked.reject(new Refusal("The part of this page that computes did not start. Reload it; any browser from 2023 on can run it."));
      waiting.clear();
    };
  }
  const id = count++;
  const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  worker.postMessage({ id, program, limit, feeds });
  return answer;
}

/** @param {number | null | undefined} value @returns {Feed} */
const whole = (value) => ({ type: "int64", data: [value ?? -1], shape: [] });

/**
 * Turn a question into a program's inputs.
 * @param {string[]} names @param {Record<string, any>} body @param {Manifest} about @returns {Record<string, Feed>}
 */
function feedsOf(names, body, about) {
  /** @type {(name: string) => Feed} */
  const feed = (name) => {
    const value = body[name];
    if (name === "pixels") return float(body.layers.map((/** @type {any} */ layer) => layer.pixels));
    if (name === "transforms") return float(body.layers.map((/** @type {any} */ layer) => about.motion.map((part) => layer.transform[part])));
    if (name === "parameter") return whole(about.parameters.indexOf(value));
    if (name === "rgba") return value;
    return Array.isArray(value) ? float(value) : whole(value);
  };
  return Object.fromEntries(names.map((name) => [name, feed(name)]));
}

/** @param {any[]} nested @returns {Feed} */
function float(nested) {
  const shape = [];
  for (let part = nested; Array.isArray(part); part = part[0]) shape.push(part.length);
  return { type: "float32", data: Float32Array.from(nested.flat(Infinity)), shape };
}

/**
 * Turn a program's outputs into an answer of the given form.
 * @param {Form} form @param {string} name @param {Record<string, Tensor>} outputs @returns {any}
 */
function filled(form, name, outputs) {
  const tensor = outputs[name];
  if (form === "array") return tensor ?? null;
  if (form === "value") return tensor ? listOf(tensor) : null;
  const dotted = name && `${name}.`;
  if (!Array.isArray(form)) return Object.fromEntries(Object.entries(form).map(([key, part]) => [key, filled(part, dotted + key, outputs)]));
  const columns = Object.entries(form[0]).map(([key, part]) => /** @type {const} */ ([key, filled(part, dotted + key, outputs)]));
  return columns[0][1].map((/** @type {unknown} */ _, /** @type {number} */ at) => Object.fromEntries(columns.map(([key, values]) => [key, values[at]])));
}

/** @param {Tensor} tensor @returns {any} */
function listOf({ shape, data: values }) {
  let flat = /** @type {any[]} */ (Array.from(values));
  for (const size of shape.slice(1).reverse()) flat = Array.from({ length: flat.length / size }, (_, at) => flat.slice(at * size, (at + 1) * size));
  return shape.length ? flat : flat[0];
}

/** Decode a picture file to pixels. @param {Blob} file @returns {Promise<Feed>} */
async function rgba(file) {
  const unreadable = new Refusal("The picture is not an image that this browser reads; choose a PNG, JPEG, GIF or WebP file.");
  const bitmap = await createImageBitmap(file).catch(() => Promise.reject(unreadable));
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Refusal(`The picture has ${width}×${height} pixels, more than 64 million; scale it down.`);
  if (Math.min(width, height) < 2) throw new Refusal("The picture is one pixel wide or high, too small to show anything.");
  const context = new OffscreenCanvas(width, height).getContext("2d");
  if (!context) throw unreadable;
  context.drawImage(bitmap, 0, 0);
  return { type: "uint8", data: new Uint8Array(context.getImageData(0, 0, width, height).data), shape: [height, width, 4] };
}

/** @type {Engine} */
export const engine = {
  unreachable: "A file of this page did not arrive. Check the connection and reload.",
  async ask(name, body) {
    const question = /** @type {Record<string, any>} */ (body);
    const about = await manifest();
    if (name === "model" && question.run !== undefined) {
      const { run } = await data("model");
      if (run !== question.run) throw new Refusal(`this explorer shows the model '${run}', not '${question.run}'`);
    }
    if (name === "meanings") return (await data(name))[question.number];
    if (READ.has(name)) return unpackAll(await data(name));
    const program = about.programs[name];
    if (!program) throw new Refusal("this model was trained without a decoder, so it cannot draw");
    const inputs = name === "picture" ? { rgba: await rgba(question.file) } : question;
    // Of the program's variants, the one with the fewest routing iterations that are enough.
    const limit = program.limits.find((most) => most >= (question.iterations ?? 1)) ?? program.limits[0];
    const outputs = await compute(name, limit, feedsOf(program.inputs, inputs, about));
    return { ...filled(program.form, "", outputs), ...("parameter" in question ? { parameter: question.parameter } : {}) };
  },
  async about() {
    const { precision, difference, digits, runtime } = await manifest();
    return `Everything on this page is computed in your browser, by ONNX Runtime Web ${runtime.version}. The weights are stored as ${precision}; with them, capsules and drawings differ from the library's by at most ${difference.toExponential(1)} on ${digits} images.`;
  },
};

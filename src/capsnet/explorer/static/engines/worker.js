// Runs the exported programs in ONNX Runtime, one at a time, away from the page's own thread.
/** @import {Feed, Manifest, Tensor} from "../types.ts" */
import { fetchFile, gunzip } from "./files.js";
import { Refusal } from "./refusal.js";

/** A module with one SIMD instruction; a browser without SIMD refuses it. */
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);
const here = (/** @type {string} */ path) => new URL(`../${path}`, import.meta.url);

const manifest = fetchFile(here("data/engine.json")).then((bytes) => /** @type {Manifest} */ (JSON.parse(new TextDecoder().decode(bytes))));
const runtime = start();
/** @type {Map<string, Promise<Uint8Array>>} */
const loaded = new Map();
/** @type {Map<string, Promise<any>>} */
const sessions = new Map();
for (const promise of [manifest, runtime, weightsOf("weights")]) promise.catch(() => {}); // reported with the first answer

async function start() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Refusal("This browser has no WebAssembly with SIMD, so it cannot run the network; any browser from 2023 on can. The text stays readable.");
  }
  const { runtime: { module, glue, binary }, files } = await manifest;
  const [ort, packed] = await Promise.all([import(here(`runtime/${module}`).href), fetchFile(here(`runtime/${binary}`), files[`runtime/${binary}`])]);
  ort.env.wasm.numThreads = 1; // more threads need headers that many hosts do not send
  ort.env.wasm.wasmPaths = { mjs: here(`runtime/${glue}`).href };
  ort.env.wasm.wasmBinary = await gunzip(packed);
  return ort;
}

/** @param {string} name */
function weightsOf(name) {
  const known = loaded.get(name) ?? loadWeights(name).catch((error) => { loaded.delete(name); throw error; });
  loaded.set(name, known);
  return known;
}

/** Load a file of weights: their first bytes, then their second bytes, …; float16 becomes float32. @param {string} name */
async function loadWeights(name) {
  const { precision, files } = await manifest;
  const planes = await gunzip(await fetchFile(here(`model/${name}.bin`), files[`model/${name}.bin`]));
  if (precision === "float32") {
    const count = planes.length / 4;
    const bytes = new Uint8Array(planes.length);
    for (let plane = 0; plane < 4; plane++) for (let i = 0; i < count; i++) bytes[4 * i + plane] = planes[plane * count + i];
    return bytes;
  }
  const wide = Float32Array.from({ length: 65536 }, (_, bits) => fromHalf(bits));
  const count = planes.length / 2;
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = wide[planes[i] | (planes[count + i] << 8)];
  return new Uint8Array(values.buffer);
}

/** @param {number} bits of a float16 */
function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}

/** @param {string} program @param {string} file */
async function open(program, file) {
  const ort = await runtime;
  const { files, programs } = await manifest;
  const name = `model/${file}.onnx`;
  const parts = programs[program].weights.map(async (path) => ({ path, data: await weightsOf(path) }));
  const [content, ...externalData] = await Promise.all([fetchFile(here(name), files[name]), ...parts]);
  return ort.InferenceSession.create(content, { executionProviders: ["wasm"], logSeverityLevel: 3, externalData });
}

/** @param {string} program @param {number} limit @param {Record<string, Feed>} feeds @returns {Promise<Record<string, Tensor>>} */
async function run(program, limit, feeds) {
  const file = `${program}-${limit}`;
  if (!sessions.has(file)) sessions.set(file, open(program, file).catch((error) => { sessions.delete(file); throw error; }));
  const [ort, session, { programs }] = await Promise.all([runtime, sessions.get(file), manifest]);
  const inputs = Object.fromEntries(Object.entries(feeds).map(([name, { type, data, shape }]) => [name, new ort.Tensor(type, type === "int64" ? BigInt64Array.from(data, BigInt) : data, shape)]));
  const found = await session.run(inputs);
  return Object.fromEntries(programs[program].outputs.map((name) => {
    const { data, dims } = found[`answer.${name}`];
    return [name, { shape: Array.from(dims), data: data instanceof BigInt64Array ? Float64Array.from(data, Number) : data }];
  }));
}

let last = Promise.resolve();
self.onmessage = ({ data: { id, program, limit, feeds } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, outputs: await run(program, limit, feeds) });
    } catch (error) {
      const problem = error instanceof Refusal ? error.message : `The network could not be run in this browser (${error instanceof Error ? error.message : error}).`;
      self.postMessage({ id, problem });
    }
  });
};

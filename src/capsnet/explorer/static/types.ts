// Types shared by the page's modules, in addition to the API's types.
import type * as Api from "./wire.ts";

/** An array from the engine. */
export interface Tensor {
  shape: number[];
  data: Float32Array | Uint8Array;
}

/** What computes the answers: the server, or the browser itself. */
export interface Engine {
  /** Answer a question: the name of an endpoint of the API, and its request. Arrays of the answer are tensors. */
  ask(name: string, body: object): Promise<unknown>;
  /** What to say when no answer comes. */
  unreachable: string;
  /** A sentence on how the answers are computed, if the visitor should know. */
  about(): Promise<string | null>;
}

/** An input of an exported program. */
export interface Feed {
  type: "float32" | "int64" | "uint8";
  data: Float32Array | Uint8Array | number[];
  shape: number[];
}

/** The form of an answer: an array, a number or list of numbers, or a tree of these; a list stands for rows. */
export type Form = "array" | "value" | { [name: string]: Form } | [{ [name: string]: Form }];

/** data/engine.json of an exported site. */
export interface Manifest {
  runtime: { version: string; module: string; glue: string; binary: string };
  programs: Record<string, { inputs: string[]; outputs: string[]; limits: number[]; weights: string[]; form: Form }>;
  parameters: string[];
  motion: string[];
  files: Record<string, { bytes: number; sha256: string }>;
  precision: "float16" | "float32";
  difference: number;
  digits: number;
}

export type Unpacked<T> = {
  [K in keyof T]: T[K] extends Api.Packed ? Tensor
    : T[K] extends Api.Packed | null ? Tensor | null
    : T[K] extends Api.Cloud ? Unpacked<Api.Cloud>
    : T[K];
};

export type Trace = Unpacked<Api.TraceResponse>;
export type View = "input" | "conv1" | "primary" | "routing" | "classes" | "reconstruction" | "control" | "ablation";
export type Tool = "draw" | "erase" | "move";

export type Motion = Required<Api.Transform>;

/** One digit on the board: the index of a test digit, or drawn pixels from 0 to 255. */
export interface Digit {
  example: number | null;
  pixels: Uint8Array;
  motion: Motion;
}

/** The state that a link reproduces. */
export interface State {
  digits: Digit[];
  active: number;
  tool: Tool;
  view: View;
  /** r, the number of routing iterations computed */
  iterations: number;
  /** the iteration shown, counted from 1 */
  at: number;
  /** the class in focus; null follows the answer */
  focus: number | null;
  /** the selected primary capsule; -1 selects the one with the largest coupling to the first answer */
  child: number;
  /** the selected position in Conv1 */
  spot: { channel: number; row: number; column: number };
  /** values of the class capsule changed by hand; null: as computed */
  pose: number[] | null;
  sheet: boolean;
  parameter: NonNullable<Api.SweepRequest["parameter"]>;
  tour: number | null;
}

/** The state and the latest answers. */
export interface World extends State {
  info: Api.ModelInfo;
  examples: Unpacked<Api.Examples>;
  trace: Trace | null;
  /** the digits that `trace` is of */
  traced: Digit[];
  /** the control's scores; null before the comparison is open */
  control: ArrayLike<number> | null;
}

export interface Panel {
  /** Called when a part of the world changed; `changed` holds the names of the changed parts. */
  update(world: World, changed: Set<keyof World>): void;
  /** Called when the panel is closed. */
  close?(): void;
}

// What the page's modules share beside the API's types.
import type * as Api from "./wire.ts";

/** Numbers as they came from the server. */
export interface Tensor {
  shape: number[];
  data: Float32Array | Uint8Array;
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

/** One digit on the board: a test digit by its number, or pixels 0 … 255 that somebody drew. */
export interface Digit {
  example: number | null;
  pixels: Uint8Array;
  motion: Motion;
}

/** All that a link reproduces. */
export interface State {
  digits: Digit[];
  active: number;
  tool: Tool;
  view: View;
  /** r, how many iterations are computed */
  iterations: number;
  /** which of them is shown, from 1 */
  at: number;
  /** class that the visitor looks at; null follows the answer */
  focus: number | null;
  /** primary capsule looked at; -1: the one that the first answer listens to most */
  child: number;
  /** Conv1 place looked at */
  spot: { channel: number; row: number; column: number };
  /** capsule numbers changed by hand; null: as computed */
  pose: number[] | null;
  sheet: boolean;
  parameter: NonNullable<Api.SweepRequest["parameter"]>;
  tour: number | null;
}

/** State, and what the server last said about it. */
export interface World extends State {
  info: Api.ModelInfo;
  examples: Unpacked<Api.Examples>;
  trace: Trace | null;
}

export interface Panel {
  /** Called when a part of the world changed; `changed` holds the names of what did. */
  update(world: World, changed: Set<keyof World>): void;
  /** Called when the visitor leaves. */
  close?(): void;
}

// Types shared by the page's modules, in addition to the API's types.
import type * as Api from "./wire.ts";

/** An array from the server. */
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

/** The state and the server's latest answers. */
export interface World extends State {
  info: Api.ModelInfo;
  examples: Unpacked<Api.Examples>;
  trace: Trace | null;
}

export interface Panel {
  /** Called when a part of the world changed; `changed` holds the names of the changed parts. */
  update(world: World, changed: Set<keyof World>): void;
  /** Called when the panel is closed. */
  close?(): void;
}

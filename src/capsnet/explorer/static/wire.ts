// Written by `python -m capsnet.explorer.typescript` from schemas/.

export interface AblationResponse {
  rows: Array<AblationRow>;
  dead_children: number;
}

export interface AblationRow {
  iterations: number;
  lengths: Array<number>;
  ranking: Array<number>;
  entropy: number;
  moved: number;
}

export interface AgentsRequest {
  estimates: Array<Array<Array<number>>>;
  iterations?: number;
}

export interface AgentsResponse {
  couplings: Packed;
  outputs: Packed;
  means: Packed;
  lengths: Packed;
}

export interface Packed {
  shape: Array<number>;
  dtype: "float32" | "uint8";
  data: string;
}

export interface CapsuleRequest {
  run?: string | null;
  number: number;
  pose: Array<number>;
}

export interface ChildRequest {
  run?: string | null;
  layers: Array<Layer>;
  iterations?: number;
  child: number;
  parent: number;
}

export interface ChildResponse {
  child: number;
  type: number | null;
  row: number | null;
  column: number | null;
  field: [number, number, number, number] | null;
  before: Packed | null;
  before_length: number | null;
  u: Packed;
  length: number;
  weight: Packed;
  vote: Packed;
  logits: Packed;
  couplings: Packed;
  agreement: Array<number>;
  squash_curve: Packed | null;
}

export interface Cloud {
  focus: number;
  points: Packed;
  mean: Packed;
  spread: Packed;
  outputs: Packed;
  rms: Array<number>;
  shown: number;
}

export interface Control {
  name: string;
  architecture: string;
  parameters: number;
  test_error: number | null;
  features: number;
}

export interface DecodeResponse {
  image: Packed;
  length: number;
}

export interface Examples {
  source: string;
  provenance: string;
  images: Packed;
  labels: Array<Array<number>>;
}

export interface Geometry {
  image_shape: [number, number, number];
  stem_channels: number;
  stem_kernel: number;
  stem_stride: number;
  maps: [number, number];
  primary_types: number;
  primary_dim: number;
  primary_kernel: number;
  primary_stride: number;
  grid: [number, number];
  in_caps: number;
  classes: number;
  class_dim: number;
  iterations: number;
  leaky: boolean;
  bias: boolean;
}

export interface ImageResponse {
  image: Packed;
}

export interface Layer {
  pixels: Array<number>;
  transform?: Transform;
}

export interface MapsResponse {
  maps: Packed;
  kernels: Packed;
}

export interface MarginResponse {
  terms: Packed;
}

export interface Meaning {
  measure: string;
  correlation: number;
}

export interface MeaningsResponse {
  examples: number;
  meanings: Array<Meaning | null>;
}

export interface ModelInfo {
  run: string;
  architecture: string;
  routing: string;
  measure: "length" | "activation";
  absent: Record<string, string>;
  parameters: number;
  class_names: Array<string>;
  geometry: Geometry;
  has_decoder: boolean;
  test_error: number | null;
  tested_on: string | null;
  trained_on: string | null;
  control: Control | null;
  overview_channels: Array<number>;
  max_iterations: number;
}

export interface PixelRequest {
  run?: string | null;
  layers: Array<Layer>;
  channel: number;
  row: number;
  column: number;
}

export interface PixelResponse {
  patch: Packed;
  kernel: Packed;
  products: Packed;
  dot: number;
  bias: number;
  value: number;
  top: number;
  left: number;
}

export interface PoolRequest {
  run?: string | null;
  layers: Array<Layer>;
  channel: number;
  size?: number;
}

export interface PoolResponse {
  size: number;
  map: Packed;
  pooled: Packed;
  winners: Packed;
  shuffled: Packed;
  shuffled_pooled: Packed;
  moved: number;
}

export interface Problem {
  detail: string;
}

export interface RouteResponse {
  votes: Packed;
  logits: Packed;
  couplings: Packed;
  sums: Packed;
  outputs: Packed;
  lengths: Packed;
}

export interface Scene {
  run?: string | null;
  layers: Array<Layer>;
}

export interface SheetResponse {
  offsets: Array<number>;
  images: Packed;
}

export interface Strict {
}

export interface SweepRequest {
  run?: string | null;
  layers: Array<Layer>;
  parameter?: "rotation" | "shift_x" | "shift_y" | "scale" | "shear";
  focus?: number | null;
}

export interface SweepResponse {
  parameter: "rotation" | "shift_x" | "shift_y" | "scale" | "shear";
  values: Array<number>;
  origin: number;
  focus: number;
  images: Packed;
  reconstructions: Packed | null;
  lengths: Packed;
  pose_change: Array<number>;
  direction_change: Array<number>;
  pose_path: Packed;
  pose_shown: number;
  control_scores: Packed | null;
  feature_change: Array<number> | null;
  feature_path: Packed | null;
  feature_shown: number | null;
}

export interface TestRow {
  iterations: number;
  errors: number;
  n: number;
  error: number;
  interval: [number, number];
  changed: number;
  winner: number;
  runner_up: number;
  entropy: number;
}

export interface TestsetResponse {
  source: string;
  done: number;
  total: number;
  rows: Array<TestRow>;
  dead_children: number | null;
  control_error: number | null;
  control_interval: [number, number] | null;
}

export interface TraceRequest {
  run?: string | null;
  layers: Array<Layer>;
  iterations?: number;
  focus?: number | null;
}

export interface TraceResponse {
  image: Packed;
  layers: Packed;
  outlines: Packed;
  maps: Packed | null;
  primary: Packed | null;
  arrows: Packed | null;
  presence: Packed;
  couplings: Packed;
  support: Packed | null;
  sums: Packed | null;
  iteration_lengths: Packed;
  entropy: Array<number>;
  lengths: Packed;
  capsules: Packed;
  ranking: Array<number>;
  speakers: Array<number>;
  reconstructions: Packed | null;
  reconstruction_errors: Array<number> | null;
  cloud: Cloud;
}

export interface Transform {
  rotation?: number;
  shear?: number;
  scale_x?: number;
  scale_y?: number;
  shift_x?: number;
  shift_y?: number;
}

// Primary capsules as arrows over the image: as long as the capsule, turned as it lies in its type's plane.
/** @import {World} from "../types.ts" */
import { arrow, colours, picture, rgba } from "../paint.js";

/** Where a place of the primary grid looks at, in pixels: the middle of what it sees, and how large that is.
 *  @param {World["info"]["geometry"]} geometry */
export function places(geometry) {
  const step = geometry.primary_stride * geometry.stem_stride;
  const field = geometry.stem_kernel + geometry.stem_stride * (geometry.primary_kernel - 1);
  return { step, field, middle: (/** @type {number} */ index) => index * step + field / 2 };
}

/**
 * @param {CanvasRenderingContext2D} context @param {World} world
 * @param {{side: number, margin: number, type?: number | null, chosen?: number | null}} options
 */
export function drawArrows(context, world, { side, margin, type = null, chosen = null }) {
  const { trace, info: { geometry } } = world;
  if (!trace) return;
  const palette = colours();
  const [, height, width] = geometry.image_shape;
  picture(context, trace.image, { width: side, colour: palette.input, alpha: 0.22 });
  const unit = side / Math.max(height, width);
  const { step, middle } = places(geometry);
  const [rows, columns] = geometry.grid;
  const reach = step * unit * (type === null ? 1.25 : 1.1) - margin;
  const area = rows * columns;
  for (let i = 0; i < geometry.in_caps; i++) {
    const kind = Math.floor(i / area);
    if (type !== null && kind !== type) continue;
    const place = i % area;
    const [x, y] = [middle(place % columns) * unit, middle(Math.floor(place / columns)) * unit];
    const [dx, dy] = [trace.arrows.data[2 * i] * reach, -trace.arrows.data[2 * i + 1] * reach];
    const own = i === chosen;
    context.strokeStyle = rgba(own ? palette.parent : palette.child, own || type !== null ? 1 : 0.15 + 0.6 * trace.primary_lengths.data[i]);
    context.lineWidth = own ? 3 : type === null ? 1 : 2;
    arrow(context, x, y, dx, dy, type === null ? 3 : 7);
  }
  context.fillStyle = rgba(palette.child);
  for (let place = 0; place < area; place++) {
    context.beginPath();
    context.arc(middle(place % columns) * unit, middle(Math.floor(place / columns)) * unit, side > 200 ? 2 : 1, 0, 7);
    context.fill();
  }
}

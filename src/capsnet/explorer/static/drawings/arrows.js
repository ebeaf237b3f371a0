// Primary capsules as arrows over the image, with the capsule's length and its direction in its type's plane.
/** @import {World} from "../types.ts" */
import { arrow, colours, picture, rgba } from "../paint.js";

/** Return the centre and size, in pixels, of the receptive field at each grid position.
 *  @param {World["info"]["geometry"]} geometry */
export function places(geometry) {
  const step = geometry.primary_stride * geometry.stem_stride;
  const field = geometry.stem_kernel + geometry.stem_stride * (geometry.primary_kernel - 1);
  return { step, field, middle: (/** @type {number} */ index) => index * step + field / 2 };
}

/**
 * @param {CanvasRenderingContext2D} context @param {World} world
 * @param {{side: number, margin: number, type?: number | null, chosen?: number | null, few?: boolean}} options
 * `few`: draw only the longest capsule at each position.
 */
export function drawArrows(context, world, { side, margin, type = null, chosen = null, few = false }) {
  const { trace, info: { geometry } } = world;
  if (!trace?.arrows) return;
  const palette = colours();
  const [, height, width] = geometry.image_shape;
  picture(context, trace.image, { width: side, colour: palette.input, alpha: 0.22 });
  const unit = side / Math.max(height, width);
  const { step, middle } = places(geometry);
  const [rows, columns] = geometry.grid;
  const reach = step * unit * (type === null ? 1.25 : 1.1) - margin;
  const area = rows * columns;
  const longest = longestOf(trace.presence.data, area);
  for (let i = 0; i < geometry.in_caps; i++) {
    const kind = Math.floor(i / area);
    const place = i % area;
    const leads = longest[place] === i;
    if ((type !== null && kind !== type) || (few && !leads)) continue;
    const [x, y] = [middle(place % columns) * unit, middle(Math.floor(place / columns)) * unit];
    const [dx, dy] = [trace.arrows.data[2 * i] * reach, -trace.arrows.data[2 * i + 1] * reach];
    const own = i === chosen;
    const bold = leads || type !== null;
    context.strokeStyle = rgba(own ? palette.parent : palette.child, own || bold ? 1 : 0.3 * trace.presence.data[i] ** 2);
    context.lineWidth = own ? 3.5 : bold ? side / 220 : 1;
    arrow(context, x, y, dx, dy, bold || own ? side / 60 : 3);
  }
  context.fillStyle = rgba(palette.child);
  for (let place = 0; place < area; place++) {
    context.beginPath();
    context.arc(middle(place % columns) * unit, middle(Math.floor(place / columns)) * unit, side > 200 ? 2 : 1, 0, 7);
    context.fill();
  }
}

/** Return the longest capsule at each position. @param {ArrayLike<number>} lengths @param {number} area */
function longestOf(lengths, area) {
  const best = Array.from({ length: area }, (_, place) => place);
  for (let i = area; i < lengths.length; i++) if (lengths[i] > lengths[best[i % area]]) best[i % area] = i;
  return best;
}

// The class that each position of the image supports: the share of ‖s‖ from each position.
/** @import {World} from "../types.ts" */
import { classColour, colours, picture, rgba } from "../paint.js";
import { shownStep } from "../state.js";
import { places } from "./arrows.js";

/**
 * @param {CanvasRenderingContext2D} context @param {World} world
 * @param {{side: number, step?: number, place?: number | null}} options
 * @returns {Array<{k: number, share: number}>} classes that own a position, the largest share first
 */
export function drawTerritory(context, world, { side, step = shownStep(world), place = null }) {
  const { trace, info: { geometry } } = world;
  const support = trace?.support;
  if (!trace || !support) return [];
  const palette = colours();
  const [, height, width] = geometry.image_shape;
  const unit = side / Math.max(height, width);
  const [rows, columns] = geometry.grid;
  const classes = geometry.classes;
  const offset = Math.round(step) * rows * columns * classes;
  const { middle, field } = places(geometry);
  picture(context, trace.image, { width: side, colour: palette.input, alpha: 0.3 });
  let max = 1e-9;
  for (let i = 0; i < rows * columns * classes; i++) max = Math.max(max, support.data[offset + i]);
  /** @type {Map<number, number>} */
  const owned = new Map();
  for (let at = 0; at < rows * columns; at++) {
    const own = Array.from({ length: classes }, (_, k) => support.data[offset + at * classes + k]);
    const k = own.indexOf(Math.max(...own));
    if (own[k] <= 0) continue;
    owned.set(k, (owned.get(k) ?? 0) + own[k]);
    context.fillStyle = rgba(classColour(k), 0.85);
    context.beginPath();
    context.arc(middle(at % columns) * unit, middle(Math.floor(at / columns)) * unit, 1 + Math.sqrt(own[k] / max) * unit * 0.98, 0, 7);
    context.fill();
  }
  if (place !== null) {
    const [x, y] = [middle(place % columns) - field / 2, middle(Math.floor(place / columns)) - field / 2];
    context.strokeStyle = rgba(palette.child);
    context.lineWidth = 1.5;
    context.setLineDash([4, 4]);
    context.strokeRect(x * unit, y * unit, field * unit, field * unit);
    context.setLineDash([]);
  }
  const total = [...owned.values()].reduce((a, b) => a + b, 0) || 1;
  return [...owned].map(([k, share]) => ({ k, share: share / total })).sort((a, b) => b.share - a.share);
}

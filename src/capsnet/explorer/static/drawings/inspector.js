// A grid of numbers; pointer or arrow keys select one.
import { begin, canvasOf, colours, ink, largest, placeOn, rgba } from "../paint.js";
/** @import {Rgb} from "../paint.js" */

/**
 * @param {{side: number, label: string, onpick?: (row: number, column: number) => void,
 *          onhover?: (row: number, column: number) => void}} options
 */
export function inspector({ side, label, onpick, onhover }) {
  const canvas = canvasOf(side, side, label);
  /** @type {{data: ArrayLike<number>, rows: number, columns: number, offset: number, colour: Rgb, negative?: Rgb, max?: number,
   *          cursor: {row: number, column: number} | null, box: [number, number, number, number] | null}} */
  let shown = { data: [], rows: 1, columns: 1, offset: 0, colour: [0, 0, 0], cursor: null, box: null };

  if (onpick || onhover) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "grid of numbers, arrow keys choose one");
  }
  const at = (/** @type {MouseEvent} */ event) => {
    const { x, y } = placeOn(canvas, event);
    const row = Math.min(shown.rows - 1, Math.max(0, Math.floor((y / side) * shown.rows)));
    const column = Math.min(shown.columns - 1, Math.max(0, Math.floor((x / side) * shown.columns)));
    return /** @type {[number, number]} */ ([row, column]);
  };
  canvas.addEventListener("click", (event) => onpick?.(...at(event)));
  canvas.addEventListener("pointermove", (event) => onhover?.(...at(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !(onpick || onhover)) return;
    event.preventDefault();
    const { row, column } = shown.cursor ?? { row: 0, column: 0 };
    const next = /** @type {[number, number]} */ ([
      Math.min(shown.rows - 1, Math.max(0, row + step[0])),
      Math.min(shown.columns - 1, Math.max(0, column + step[1])),
    ]);
    (onpick ?? onhover)?.(...next);
  });

  return {
    canvas,
    /** @param {Partial<typeof shown>} change */
    show(change) {
      shown = { ...shown, ...change };
      const { data, rows, columns, offset, colour, negative, cursor, box } = shown;
      const { context } = begin(canvas);
      const palette = colours();
      const max = shown.max ?? (largest(data, offset, offset + rows * columns) || 1);
      ink(context, data, { rows, columns, offset, x: 0, y: 0, width: side, height: side, colour, negative, max });
      context.lineWidth = 2;
      if (box) {
        context.strokeStyle = rgba(palette.child);
        context.strokeRect((box[1] / columns) * side, (box[0] / rows) * side, ((box[3] - box[1]) / columns) * side, ((box[2] - box[0]) / rows) * side);
      }
      if (cursor) {
        context.strokeStyle = rgba(palette.parent);
        context.strokeRect((cursor.column / columns) * side, (cursor.row / rows) * side, side / columns, side / rows);
      }
    },
  };
}

// A round pen with soft edges that draws on the image's pixels.

/** Widths in pixels for a 28-pixel image; they grow with the image. */
const PEN = 1.15;
const ERASER = 2.2;

/**
 * Draw one straight stroke into `pixels`.
 * @param {Uint8Array} pixels
 * @param {[number, number, number]} shape
 * @param {{x: number, y: number}} from in pixels
 * @param {{x: number, y: number}} to
 * @param {boolean} erase
 */
export function stroke(pixels, [channels, height, width], from, to, erase) {
  const radius = (erase ? ERASER : PEN) * (Math.max(height, width) / 28);
  const reach = radius + 0.5;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const squared = dx * dx + dy * dy;
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - reach));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + reach));
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - reach));
  const right = Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + reach));
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const [px, py] = [column + 0.5 - from.x, row + 0.5 - from.y];
      const along = squared ? Math.min(1, Math.max(0, (px * dx + py * dy) / squared)) : 0;
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const cover = Math.round(255 * Math.min(1, Math.max(0, reach - distance)));
      for (let channel = 0; channel < channels; channel++) {
        const at = (channel * height + row) * width + column;
        pixels[at] = erase ? Math.min(pixels[at], 255 - cover) : Math.max(pixels[at], cover);
      }
    }
  }
}

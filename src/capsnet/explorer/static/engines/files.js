// Fetch the site's files, and say in a sentence which one did not arrive whole.
import { Refusal } from "./refusal.js";

/**
 * Fetch a file of the site.
 * @param {URL} address
 * @param {{bytes: number, sha256: string}} [seal] what the file must be
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchFile(address, seal) {
  const name = address.pathname.split("/").slice(-2).join("/");
  const response = await fetch(address).catch(() => null);
  if (!response?.ok) throw new Refusal(`The file ${name} did not arrive (${response ? response.status : "no connection"}). The text stays readable; reload to try again.`);
  const content = new Uint8Array(await response.arrayBuffer().catch(() => new ArrayBuffer(0)));
  if (!seal) return content;
  if (content.length !== seal.bytes) throw new Refusal(`The file ${name} was cut short: ${content.length} of ${seal.bytes} bytes arrived. Reload to try again.`);
  // Browsers hash only on secure pages; elsewhere the size must do.
  if (globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== seal.sha256) throw new Refusal(`The file ${name} is not the one that was exported: its hash differs. Export the site again.`);
  }
  return content;
}

/** Unpack gzip. @param {Uint8Array<ArrayBuffer>} content */
export async function gunzip(content) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

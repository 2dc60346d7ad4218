// Runs the networks, apart from the page so that it stays responsive. Messages in: {model, pixels, mask, height, width};
// out: {progress}, then {pixels} or {error}.

import * as ort from "./ort/ort.wasm.min.mjs";
import { harmonicFill } from "./fill.js";

const TILE = 256;

ort.env.wasm.wasmPaths = new URL("ort/", self.location.href).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;

const sessions = new Map();
let models = null;

self.onmessage = async ({ data }) => {
  try {
    const { session, facts } = await opened(data.model);
    const pixels = await repaired(session, facts, data);
    self.postMessage({ pixels }, [pixels.buffer]);
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};

async function opened(name) {
  models ??= await (await fetch("models.json")).json();
  const facts = models[name];
  if (!sessions.has(name)) {
    self.postMessage({ progress: `loading ${name} (${Math.round(facts.bytes / 1e6)} MB)` });
    const answer = await fetch(facts.file);
    if (!answer.ok) throw new Error(`${facts.file} cannot be loaded`);
    const graph = new Uint8Array(await answer.arrayBuffer());
    sessions.set(name, await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] }));
  }
  return { session: sessions.get(name), facts };
}

/** RGBA pixels of the whole image, repaired tile by tile; each tile sees `overlap` pixels around it. */
async function repaired(session, facts, { pixels, mask, height, width }) {
  const count = height * width;
  let image = new Float32Array(3 * count);
  for (let at = 0; at < count; at++) {
    for (let channel = 0; channel < 3; channel++) image[channel * count + at] = pixels[4 * at + channel] / 255;
  }
  // The guess depends on the whole image, so it is made before tiles are cut.
  if (facts.mask) image = harmonicFill(image, mask, height, width);
  const overlap = Math.ceil(facts.overlap / facts.multiple) * facts.multiple;
  const tiles = [];
  for (let top = 0; top < height; top += TILE) {
    for (let left = 0; left < width; left += TILE) {
      const tile = { top, left, bottom: Math.min(top + TILE, height), right: Math.min(left + TILE, width) };
      if (!facts.mask || holds(mask, width, tile)) tiles.push(tile);
    }
  }
  const result = new Uint8ClampedArray(pixels);
  for (const [number, tile] of tiles.entries()) {
    self.postMessage({ progress: `tile ${number + 1} of ${tiles.length}` });
    const part = cut(image, mask, height, width, tile, overlap, facts.multiple);
    const feeds = { image: new ort.Tensor("float32", part.image, [1, 3, part.height, part.width]) };
    if (facts.mask) feeds.mask = new ort.Tensor("float32", part.mask, [1, 1, part.height, part.width]);
    const { output } = await session.run(feeds);
    for (let y = tile.top; y < tile.bottom; y++) {
      for (let x = tile.left; x < tile.right; x++) {
        const at = y * width + x;
        if (facts.mask && !mask[at]) continue;
        const inside = (y - part.top) * part.width + (x - part.left);
        for (let channel = 0; channel < 3; channel++) {
          // The array rounds and clamps.
          result[4 * at + channel] = 255 * output.data[channel * part.height * part.width + inside];
        }
      }
    }
    output.dispose();
  }
  return result;
}

function holds(mask, width, { top, left, bottom, right }) {
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) if (mask[y * width + x]) return true;
  }
  return false;
}

/** A tile with its surroundings, extended to the right and below to a multiple by reflection. */
function cut(image, mask, height, width, tile, overlap, multiple) {
  const top = Math.max(tile.top - overlap, 0), left = Math.max(tile.left - overlap, 0);
  const inner = { height: Math.min(tile.bottom + overlap, height) - top, width: Math.min(tile.right + overlap, width) - left };
  const h = Math.ceil(inner.height / multiple) * multiple, w = Math.ceil(inner.width / multiple) * multiple;
  const reflects = h - inner.height < inner.height && w - inner.width < inner.width;
  const source = (at, size) => (at < size ? at : reflects ? 2 * size - 2 - at : size - 1);
  const part = { top, left, height: h, width: w, image: new Float32Array(3 * h * w), mask: new Float32Array(mask ? h * w : 0) };
  for (let y = 0; y < h; y++) {
    const row = (top + source(y, inner.height)) * width + left;
    for (let x = 0; x < w; x++) {
      const from = row + source(x, inner.width), to = y * w + x;
      for (let channel = 0; channel < 3; channel++) part.image[channel * h * w + to] = image[channel * height * width + from];
      if (mask) part.mask[to] = mask[from] ? 1 : 0;
    }
  }
  return part;
}

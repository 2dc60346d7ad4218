// Tiles of one layer of an image: those wanted now are fetched, the nearest first, and drawn when they are there. Until
// then the last version of a tile, or a part of a coarser one, stands in for it.

import { bitmap } from "./server.js";

const atOnce = 4; // of the browser's six connections: strokes and events need theirs
const kept = matchMedia("(pointer: coarse)").matches ? 120 : 360; // tiles of 1 MB each, all layers together
let clock = 0;
let running = 0;
const layers = new Set();

export class Tiles {
  /**
   * @param {object} image  `levels` with width and height, full size first, and `tile`, the side of a tile
   * @param {(level: number, x: number, y: number, version: number) => string} address
   * @param {(level: number, x: number, y: number) => void} arrived  something new can be drawn there
   * @param {(loaded: ImageBitmap) => object} prepare  what is kept and drawn of a tile
   */
  constructor(image, address, arrived, prepare = (loaded) => loaded) {
    Object.assign(this, { image, address, arrived, prepare });
    this.cells = new Map(); // "level/x/y" -> { version, value, used, loading, failed }
    this.base = 0; // version of every tile that is not in `changed`
    this.changed = new Map(); // "level/x/y" -> version
    this.wanted = [];
    layers.add(this);
  }

  close() {
    layers.delete(this);
    for (const cell of this.cells.values()) {
      cell.loading?.abort();
      cell.value?.close?.();
    }
    this.cells.clear();
    this.wanted = [];
  }

  /** Everything is new, and what failed is tried again. What is shown stays until its successor is there. */
  renew(version) {
    for (const cell of this.cells.values()) delete cell.failed;
    this.base = version;
    this.changed.clear();
  }

  /** Tiles of level 0, `[[x, y], ...]`, are new, and with them those of the other levels that show the same place. */
  renewTiles(places, version) {
    for (const [x, y] of places) {
      for (let level = 0; level < this.image.levels.length; level++) this.changed.set(`${level}/${x >> level}/${y >> level}`, version);
    }
  }

  version(key) {
    return this.changed.get(key) ?? this.base;
  }

  /** Whether the newest version is there. */
  isCurrent(level, x, y) {
    const key = `${level}/${x}/${y}`, cell = this.cells.get(key);
    return Boolean(cell) && cell.version === this.version(key);
  }

  /** What can be drawn for a tile now: `{ value, level, x, y }` of it or of a coarser one; null if nothing is known. */
  best(level, x, y) {
    for (let up = level; up < this.image.levels.length; up++) {
      const cell = this.cells.get(`${up}/${x >> (up - level)}/${y >> (up - level)}`);
      if (cell?.version !== undefined) {
        cell.used = ++clock;
        return { value: cell.value, level: up, x: x >> (up - level), y: y >> (up - level) };
      }
    }
    return null;
  }

  /** @param {number[][]} places  `[level, x, y]`, the most urgent first; whatever is not among them is given up */
  want(places) {
    const keys = new Set(places.map((place) => place.join("/")));
    for (const [key, cell] of this.cells) if (cell.loading && !keys.has(key)) cell.loading.abort();
    this.wanted = places.filter(([level, x, y]) => !this.isCurrent(level, x, y));
    pump();
  }

  next() {
    return this.wanted.find((place) => {
      const key = place.join("/"), cell = this.cells.get(key);
      return !cell || (!cell.loading && cell.failed !== this.version(key) && cell.version !== this.version(key));
    });
  }

  async load([level, x, y]) {
    const key = `${level}/${x}/${y}`;
    const cell = this.cells.get(key) || { used: ++clock };
    const version = this.version(key);
    this.cells.set(key, cell);
    cell.loading = new AbortController();
    running++;
    try {
      const loaded = await bitmap(this.address(level, x, y, version), cell.loading.signal);
      if (layers.has(this)) {
        cell.value?.close?.();
        cell.value = loaded && this.prepare(loaded);
        cell.version = version;
        this.arrived(level, x, y);
      }
    } catch (error) {
      if (error.name !== "AbortError") cell.failed = version; // not again before something changes
      if (cell.version === undefined && error.name === "AbortError") this.cells.delete(key);
    }
    cell.loading = null;
    running--;
    pump();
  }
}

function pump() {
  forget();
  while (running < atOnce) {
    let started = false;
    for (const layer of layers) {
      const place = running < atOnce && layer.next();
      if (place) {
        layer.load(place);
        started = true;
      }
    }
    if (!started) return;
  }
}

/** Forget the tiles that were not drawn for the longest time. */
function forget() {
  let count = 0;
  for (const layer of layers) count += layer.cells.size;
  if (count <= kept) return;
  const all = [];
  for (const layer of layers) for (const [key, cell] of layer.cells) if (!cell.loading) all.push([cell.used, layer, key]);
  all.sort((a, b) => a[0] - b[0]);
  for (const [, layer, key] of all.slice(0, count - Math.floor(kept * 0.8))) {
    layer.cells.get(key).value?.close?.();
    layer.cells.delete(key);
  }
}

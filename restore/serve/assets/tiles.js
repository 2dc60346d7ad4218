// Tiles of one layer of an image: those wanted now are fetched, the nearest first, and drawn when they are there. Until
// then the last version of a tile, or a part of a coarser one, stands in for it. Earlier versions are kept for a while:
// undoing shows them again without asking the server.

import { bitmap } from "./server.js";

const atOnce = 4; // of the browser's six connections: strokes and events need theirs
const kept = matchMedia("(pointer: coarse)").matches ? 120 : 360; // tiles of 1 MB each, all layers together
const keptVersions = 4; // of one tile
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
    this.cells = new Map(); // "level/x/y" -> { version, value, isSure, earlier, used, loading, failed }
    this.base = 0; // version of every tile that is not in `changed`
    this.newest = 0; // the last state of the layer, of which its versions are numbers, that is known here
    this.changed = new Map(); // "level/x/y" -> version
    this.wanted = [];
    this.shown = new Set(); // keys of the tiles in the stage
    layers.add(this);
  }

  close() {
    layers.delete(this);
    for (const cell of this.cells.values()) {
      cell.loading?.abort();
      drop(cell);
    }
    this.cells.clear();
    this.wanted = [];
  }

  /** Everything is new, and what failed is tried again. What is shown stays until its successor is there. */
  renew(version) {
    this.base = this.newest = version;
    this.changed.clear();
    for (const cell of this.cells.values()) {
      delete cell.failed;
      goTo(cell, version);
    }
  }

  /**
   * Tiles of level 0, `[[x, y], ...]`, are new, and with them those of the other levels that show the same place.
   *
   * @returns {Map<string, number>}  the versions before, for `restore`
   */
  renewTiles(places, version) {
    const before = new Map();
    for (const [x, y] of places) {
      for (let level = 0; level < this.image.levels.length; level++) {
        const key = `${level}/${x >> level}/${y >> level}`;
        if (before.has(key)) continue;
        before.set(key, this.version(key));
        this.changed.set(key, version);
      }
    }
    this.newest = version;
    return before;
  }

  /**
   * Tiles are again as they were in these versions.
   *
   * @param {number} newest  the state of the layer that this is
   * @returns {Map<string, number>}  the versions before
   */
  restore(versions, newest) {
    const before = new Map();
    for (const [key, version] of versions) {
      before.set(key, this.version(key));
      this.changed.set(key, version);
      if (this.cells.has(key)) goTo(this.cells.get(key), version);
    }
    this.newest = newest;
    return before;
  }

  /** All pixels of a tile are 0 or 255: it need not be fetched. */
  know(level, x, y, value) {
    const key = `${level}/${x}/${y}`;
    if (this.isCurrent(level, x, y)) return;
    const cell = this.cells.get(key) || { used: ++clock };
    keep(cell);
    this.cells.set(key, Object.assign(cell, { version: this.version(key), value: value ? full(this.image.tile) : null, isSure: true }));
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
    this.shown = keys;
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
      const { image, revision } = await bitmap(this.address(level, x, y, version), cell.loading.signal);
      // The server sends the newest state: that of `version` only if the tile has not changed since.
      const isSure = revision === version || (this.version(key) === version && revision <= this.newest);
      if (!layers.has(this) || this.isCurrent(level, x, y)) image?.close(); // undone meanwhile
      else {
        keep(cell);
        Object.assign(cell, { value: image && this.prepare(image), version, isSure });
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

let white = null;

/** A tile of which all is covered; what is drawn of it at a border is a part. */
function full(side) {
  if (white?.width !== side) {
    white = new OffscreenCanvas(side, side);
    const context = white.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, side, side);
  }
  return white;
}

/** Show an earlier version again, if it is still there. */
function goTo(cell, version) {
  const value = cell.earlier?.get(version);
  if (value === undefined || cell.version === version) return;
  cell.earlier.delete(version);
  keep(cell);
  Object.assign(cell, { version, value, isSure: true });
}

/** What a tile shows becomes an earlier version. */
function keep(cell) {
  if (!cell.isSure) {
    cell.value?.close?.();
    return;
  }
  cell.earlier ||= new Map();
  cell.earlier.get(cell.version)?.close?.();
  cell.earlier.set(cell.version, cell.value);
  while (cell.earlier.size >= keptVersions) {
    const [[version, value]] = cell.earlier;
    value?.close?.();
    cell.earlier.delete(version);
  }
}

function drop(cell, onlyEarlier = false) {
  if (!onlyEarlier) cell.value?.close?.();
  for (const value of cell.earlier?.values() || []) value?.close?.();
  cell.earlier = null;
}

/** Forget the tiles that were not drawn for the longest time; then earlier versions of those that are in the stage. */
function forget() {
  let room = kept;
  for (const layer of layers) for (const cell of layer.cells.values()) room -= 1 + (cell.earlier?.size || 0);
  if (room >= 0) return;
  room -= Math.floor(kept * 0.2);
  const all = [];
  for (const layer of layers) {
    for (const [key, cell] of layer.cells) if (!cell.loading) all.push({ layer, key, cell, isShown: layer.shown.has(key) });
  }
  all.sort((a, b) => a.isShown - b.isShown || a.cell.used - b.cell.used);
  for (const { layer, key, cell, isShown } of all) {
    if (room >= 0) return;
    const earlier = cell.earlier?.size || 0;
    drop(cell, isShown);
    if (!isShown) layer.cells.delete(key);
    room += earlier + (isShown ? 0 : 1);
  }
}

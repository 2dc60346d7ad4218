// The stage: the image, its mask and what was found, on three canvases above each other. Only what changed is drawn,
// at most once a frame.

import { Tiles } from "./tiles.js";
import { View } from "./view.js";

const foundColor = [255, 196, 0];

export class Stage {
  /** @param {HTMLElement} place  holds the canvases `#ground`, `#found` and `#marks` */
  constructor(place) {
    this.place = place;
    this.canvases = Object.fromEntries(["ground", "found", "marks"].map((name) => [name, byId(name)]));
    this.contexts = {};
    for (const [name, canvas] of Object.entries(this.canvases)) this.contexts[name] = canvas.getContext("2d", { alpha: true });
    this.view = new View(() => this.redraw("ground", "found", "marks"));
    this.dirty = new Set();
    this.dirtyMarks = null; // a box of the image, if not all of the marks have to be drawn
    this.isScheduled = false;
    this.image = null;
    this.pending = []; // strokes that are not yet in the tiles: { shape, revision }; the last may be in hand
    this.shown = "original"; // original, repaired, divided
    this.divided = 0.5;
    this.showsMarks = true;
    this.showsFound = false;
    this.threshold = 0.5;
    this.color = "#ff2d55";
    this.patch = null; // a repaired part: { image, x, y, width, height }
    this.onView = () => {};
    this.onMarks = () => {};
    this.watchSize();
  }

  watchSize() {
    const measure = (width, height) => {
      for (const canvas of Object.values(this.canvases)) {
        if (canvas.width !== width) canvas.width = width;
        if (canvas.height !== height) canvas.height = height;
      }
      // From here on, CSS pixels: the stage measures what it measures at any zoom of the browser.
      const box = this.place.getBoundingClientRect();
      this.ratio = { x: width / Math.max(box.width, 1), y: height / Math.max(box.height, 1) };
      this.view.setStage(box.width, box.height);
    };
    const observer = new ResizeObserver(([entry]) => {
      const exact = entry.devicePixelContentBoxSize?.[0];
      if (exact) measure(Math.max(exact.inlineSize, 1), Math.max(exact.blockSize, 1));
      else measure(Math.max(Math.round(entry.contentRect.width * devicePixelRatio), 1), Math.max(Math.round(entry.contentRect.height * devicePixelRatio), 1));
    });
    try { observer.observe(this.place, { box: "device-pixel-content-box" }); } catch { observer.observe(this.place); }
    this.ratio = { x: devicePixelRatio, y: devicePixelRatio };
  }

  /** @param {object} file  `id`, `width`, `height`, `levels`, and versions of its layers */
  open(file, tile) {
    this.close();
    this.image = { width: file.width, height: file.height, levels: file.levels, tile };
    const base = `/page/files/${file.id}`;
    const layer = (name, canvas, prepare) =>
      new Tiles(this.image, (level, x, y, version) => `${base}/${name}/${level}/${x}/${y}?v=${version}`, (level, x, y) => this.arrived(canvas, level, x, y), prepare);
    this.layers = {
      original: layer("tiles/original", "ground"),
      repaired: layer("tiles/repaired", "ground"),
      mask: layer("mask", "marks"),
      found: layer("found", "found", (loaded) => new FoundTile(loaded)),
    };
    this.view.setImage(file.width, file.height);
  }

  close() {
    if (this.layers) for (const layer of Object.values(this.layers)) layer.close();
    this.image = this.layers = this.patch = null;
    this.pending = [];
    for (const [name, canvas] of Object.entries(this.canvases)) this.contexts[name].clearRect(0, 0, canvas.width, canvas.height);
  }

  // ---- what to draw

  redraw(...names) {
    for (const name of names) this.dirty.add(name);
    if (names.includes("marks")) this.dirtyMarks = null;
    this.schedule();
  }

  /** Show the mask, for instance because something is painted. */
  showMarks() {
    if (this.showsMarks) return;
    this.showsMarks = true;
    this.onMarks();
    this.redraw("marks");
  }

  /** Draw the marks again within a box of the image. */
  redrawMarks(box) {
    if (this.dirty.has("marks")) {
      if (this.dirtyMarks) this.dirtyMarks = union(this.dirtyMarks, box);
    } else {
      this.dirty.add("marks");
      this.dirtyMarks = box;
    }
    this.schedule();
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      if (this.image) this.drawFrame();
    });
  }

  arrived(canvas, level, x, y) {
    if (canvas === "marks") {
      const size = this.image.tile * 2 ** level;
      this.redrawMarks([x * size, y * size, (x + 1) * size, (y + 1) * size]);
    } else this.redraw(canvas);
  }

  drawFrame() {
    const dirty = this.dirty, box = this.dirtyMarks;
    this.dirty = new Set();
    this.dirtyMarks = null;
    const places = this.visible();
    this.settlePending(places);
    if (dirty.has("ground")) {
      this.drawGround(places);
      this.onView();
    }
    if (dirty.has("found")) this.drawFound(places);
    if (dirty.has("marks")) this.drawMarks(places, box);
    this.wantTiles(places);
  }

  /** Tiles in the stage, `[level, x, y]`, from the center outwards. */
  visible() {
    const { levels, tile } = this.image;
    const perPixel = 1 / (this.view.scale * this.ratio.x); // image pixels per pixel of the screen
    const level = Math.min(Math.max(Math.floor(Math.log2(perPixel) + 0.1), 0), levels.length - 1);
    const [x0, y0, x1, y1] = this.view.box;
    const size = tile * 2 ** level, places = [];
    if (x1 <= x0 || y1 <= y0) return places;
    const columns = Math.ceil(levels[level].width / tile), rows = Math.ceil(levels[level].height / tile);
    for (let y = Math.floor(y0 / size); y <= Math.min(Math.floor((y1 - 1) / size), rows - 1); y++) {
      for (let x = Math.floor(x0 / size); x <= Math.min(Math.floor((x1 - 1) / size), columns - 1); x++) places.push([level, x, y]);
    }
    const [cx, cy] = [(x0 + x1) / 2 / size - 0.5, (y0 + y1) / 2 / size - 0.5];
    return places.sort((a, b) => Math.hypot(a[1] - cx, a[2] - cy) - Math.hypot(b[1] - cx, b[2] - cy));
  }

  /** The level whose tiles are shown. */
  get level() {
    return this.visible()[0]?.[0] ?? 0;
  }

  wantTiles(places) {
    const top = this.image.levels.length - 1;
    const overview = top > 2 && places.length && places[0][0] < top ? [[top, 0, 0]] : [];
    const { original, repaired, mask, found } = this.layers;
    const needsRepaired = this.hasResult && this.shown !== "original";
    original.want(this.shown === "repaired" && this.hasResult ? [] : [...overview, ...places]);
    repaired.want(needsRepaired ? [...overview, ...places] : []);
    mask.want(this.showsMarks ? places : []);
    found.want(this.showsFound ? places : []);
  }

  // ---- drawing

  /** The rectangle of a box of the image on the canvases, in their pixels, to whole ones: neighbours meet exactly. */
  onCanvas([x0, y0, x1, y1]) {
    const [left, top] = this.view.toStage(x0, y0), [right, bottom] = this.view.toStage(x1, y1);
    const [a, b, c, d] = [left * this.ratio.x, top * this.ratio.y, right * this.ratio.x, bottom * this.ratio.y].map(Math.round);
    return [a, b, c - a, d - b];
  }

  tileBox(level, x, y) {
    const size = this.image.tile * 2 ** level;
    return [x * size, y * size, Math.min((x + 1) * size, this.image.width), Math.min((y + 1) * size, this.image.height)];
  }

  drawTile(context, layer, [level, x, y], pixelsOf = (value) => value) {
    const best = layer.best(level, x, y);
    const pixels = best?.value && pixelsOf(best.value);
    if (!pixels) return;
    const box = this.tileBox(level, x, y), whole = this.tileBox(best.level, best.x, best.y);
    const share = 1 / 2 ** best.level;
    context.drawImage(
      pixels,
      (box[0] - whole[0]) * share, (box[1] - whole[1]) * share, (box[2] - box[0]) * share, (box[3] - box[1]) * share,
      ...this.onCanvas(box),
    );
  }

  smoothing(context) {
    context.imageSmoothingEnabled = this.view.scale * this.ratio.x < 2;
    context.imageSmoothingQuality = "medium";
  }

  drawGround(places) {
    const context = this.contexts.ground, { width, height } = this.canvases.ground;
    context.clearRect(0, 0, width, height);
    this.smoothing(context);
    const border = Math.round(this.divided * width);
    if (this.shown !== "repaired") this.drawSide(context, places, "original", this.shown === "divided" ? [0, border] : [0, width]);
    if (this.shown !== "original") this.drawSide(context, places, "repaired", this.shown === "divided" ? [border, width] : [0, width]);
  }

  drawSide(context, places, side, [from, to]) {
    if (to <= from) return;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, this.canvases.ground.height);
    context.clip();
    const layer = side === "repaired" && this.hasResult ? this.layers.repaired : this.layers.original;
    for (const place of places) this.drawTile(context, layer, place);
    if (side === "repaired" && this.patch) {
      const { image, x, y, width, height } = this.patch;
      context.drawImage(image, ...this.onCanvas([x, y, x + width, y + height]));
    }
    context.restore();
  }

  drawFound(places) {
    const context = this.contexts.found, { width, height } = this.canvases.found;
    context.clearRect(0, 0, width, height);
    if (!this.showsFound) return;
    this.smoothing(context);
    for (const place of places) this.drawTile(context, this.layers.found, place, (tile) => tile.above(this.threshold));
  }

  drawMarks(places, box) {
    const context = this.contexts.marks, { width, height } = this.canvases.marks;
    const [left, top, across, down] = box ? this.onCanvas(box).map((at, side) => at + (side < 2 ? -1 : 2)) : [0, 0, width, height];
    context.save();
    context.beginPath();
    context.rect(left, top, across, down);
    context.clip();
    context.clearRect(left, top, across, down);
    if (this.showsMarks) {
      this.smoothing(context);
      for (const place of places) this.drawTile(context, this.layers.mask, place);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = context.strokeStyle = this.color;
      context.fillRect(left, top, across, down);
      this.drawPending(context, box || [0, 0, this.image.width, this.image.height]);
    }
    context.restore();
  }

  drawPending(context, box) {
    if (!this.pending.length) return;
    context.setTransform(
      this.view.scale * this.ratio.x, 0, 0, this.view.scale * this.ratio.y, this.view.x * this.ratio.x, this.view.y * this.ratio.y,
    );
    context.beginPath();
    context.rect(0, 0, this.image.width, this.image.height);
    context.clip();
    const pixel = 1 / (this.view.scale * this.ratio.x), margin = 3 * pixel;
    const grown = [box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin];
    for (const { shape } of this.pending) if (shape.points.length) shape.draw(context, pixel, grown);
  }

  /** Strokes leave the list when all tiles in the stage show them. */
  settlePending(places) {
    const settled = this.pending.filter(
      ({ shape, revision, tiles }) => revision !== undefined && places.every(([level, x, y]) => {
        const touches = tiles.some(([tx, ty]) => tx >> level === x && ty >> level === y);
        return !touches || this.layers.mask.isCurrent(level, x, y) || !shape.points.length;
      }),
    );
    if (!settled.length) return;
    this.pending = this.pending.filter((one) => !settled.includes(one));
    for (const { shape } of settled) if (shape.points.length) this.redrawMarks(shape.box);
  }
}

/** A tile of probabilities. Its pixels above a threshold are made anew only when the threshold changes. */
class FoundTile {
  constructor(loaded) {
    const canvas = new OffscreenCanvas(loaded.width, loaded.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(loaded, 0, 0);
    loaded.close();
    const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
    this.levels = new Uint8Array(bytes.length / 4);
    this.highest = 0;
    for (let at = 0; at < this.levels.length; at++) {
      const level = bytes[4 * at];
      this.levels[at] = level;
      if (level > this.highest) this.highest = level;
    }
    Object.assign(this, { width: canvas.width, height: canvas.height, pixels: null, from: null });
  }

  /** @param {number} threshold  0 to 1 */
  above(threshold) {
    const from = Math.max(Math.ceil(threshold * 255 - 1e-6), 1);
    if (from > this.highest) return null;
    if (from !== this.from) {
      this.from = from;
      this.pixels ||= new OffscreenCanvas(this.width, this.height);
      const context = this.pixels.getContext("2d");
      this.image ||= new ImageData(this.width, this.height);
      const words = new Uint32Array(this.image.data.buffer);
      const [r, g, b] = foundColor, on = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
      for (let at = 0; at < words.length; at++) words[at] = this.levels[at] >= from ? on : 0;
      context.putImageData(this.image, 0, 0);
    }
    return this.pixels;
  }
}

function union(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

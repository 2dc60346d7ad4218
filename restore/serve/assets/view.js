// Where the image lies in the stage. Lengths are CSS pixels of the stage, except those that are said to be of the image.

export class View {
  constructor(changed) {
    this.changed = changed;
    this.image = { width: 1, height: 1 };
    this.stage = { width: 1, height: 1 };
    this.scale = 1; // CSS pixels per image pixel
    this.x = 0; // of the image's corner
    this.y = 0;
    this.isFit = true;
  }

  setImage(width, height) {
    this.image = { width, height };
    this.fit();
  }

  /** The stage has another size; what was in its center stays there. */
  setStage(width, height) {
    const before = this.toImage(this.stage.width / 2, this.stage.height / 2);
    this.stage = { width, height };
    if (this.isFit) return this.fit();
    this.x = width / 2 - before[0] * this.scale;
    this.y = height / 2 - before[1] * this.scale;
    this.keepInside();
    this.changed();
  }

  get fitScale() {
    const margin = Math.min(this.stage.width, this.stage.height) > 500 ? 24 : 8;
    const fit = Math.min((this.stage.width - 2 * margin) / this.image.width, (this.stage.height - 2 * margin) / this.image.height);
    return Math.max(Math.min(fit, 8), 1e-4);
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.stage.width - this.image.width * this.scale) / 2;
    this.y = (this.stage.height - this.image.height * this.scale) / 2;
    this.isFit = true;
    this.changed();
  }

  /** The image point at a point of the stage. */
  toImage(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** Zoom so that the image point at (x, y) of the stage stays there. */
  zoomTo(scale, x = this.stage.width / 2, y = this.stage.height / 2) {
    const [imageX, imageY] = this.toImage(x, y);
    const largest = 64 / devicePixelRatio;
    this.scale = Math.min(Math.max(scale, Math.min(this.fitScale / 2, 1 / devicePixelRatio)), largest);
    this.x = x - imageX * this.scale;
    this.y = y - imageY * this.scale;
    this.isFit = false;
    this.keepInside();
    this.changed();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.scale * factor, x, y);
  }

  /** One image pixel on one pixel of the screen. */
  zoomToPixels(x, y) {
    this.zoomTo(1 / devicePixelRatio, x, y);
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.isFit = false;
    this.keepInside();
    this.changed();
  }

  /** Bring an image point into the stage, with a margin. */
  reveal(imageX, imageY) {
    const margin = Math.min(60, this.stage.width / 4, this.stage.height / 4);
    const [x, y] = this.toStage(imageX, imageY);
    const by = (at, size) => (at < margin ? margin - at : at > size - margin ? size - margin - at : 0);
    const [right, down] = [by(x, this.stage.width), by(y, this.stage.height)];
    if (right || down) this.panBy(right, down);
  }

  /** Some of the image always stays in the stage. */
  keepInside() {
    const clamp = (at, size, room) => Math.min(Math.max(at, Math.min(60, room / 3) - size), room - Math.min(60, room / 3));
    this.x = clamp(this.x, this.image.width * this.scale, this.stage.width);
    this.y = clamp(this.y, this.image.height * this.scale, this.stage.height);
  }

  /** The part of the image in the stage, in image pixels: [x0, y0, x1, y1], integers. */
  get box() {
    const [left, top] = this.toImage(0, 0), [right, bottom] = this.toImage(this.stage.width, this.stage.height);
    const clamp = (at, size) => Math.min(Math.max(at, 0), size);
    return [
      clamp(Math.floor(left), this.image.width), clamp(Math.floor(top), this.image.height),
      clamp(Math.ceil(right), this.image.width), clamp(Math.ceil(bottom), this.image.height),
    ];
  }
}

// Strokes, polygons and lassos as they are drawn before the server has them in its mask. All coordinates are those of
// the upright image at full size.

const soft = 6; // steps of a soft edge

export class Stroke {
  constructor({ softness, erase }) {
    Object.assign(this, { softness, erase, points: [] });
    this.isEven = true; // the radius has stayed the same
    this.length = 0; // image pixels
  }

  /** @returns {number[]} the box [x0, y0, x1, y1] that has to be drawn again */
  add(x, y, r) {
    const before = this.points[this.points.length - 1] || [x, y, r];
    this.points.push([x, y, r]);
    if (r !== before[2]) this.isEven = false;
    this.length += Math.hypot(x - before[0], y - before[1]);
    return boxAround([[x, y], before], Math.max(r, before[2]));
  }

  get box() {
    return boxAround(this.points, Math.max(...this.points.map((point) => point[2])));
  }

  /**
   * @param {CanvasRenderingContext2D} context  in image coordinates, with the color of the mask
   * @param {number} pixel  the width of one of the screen
   * @param {number[]} box  what is drawn again; the rest of a long stroke costs nothing
   */
  draw(context, pixel, box) {
    context.globalCompositeOperation = this.erase ? "destination-out" : "source-over";
    const segments = this.segmentsIn(box);
    if (!segments.length) return;
    // From the rim of a soft edge inwards: every step raises the coverage to its own share.
    const steps = this.softness ? soft : 1;
    let reached = 0;
    for (let step = 1; step <= steps; step++) {
      const coverage = step / steps;
      context.globalAlpha = 1 - (1 - coverage) / (1 - reached);
      this.drawAt(context, segments, this.softness ? 1 - (this.softness * (step - 0.5)) / steps : 1);
      reached = coverage;
    }
    context.globalAlpha = 1;
  }

  /** The pieces [from, to] that reach into a box. */
  segmentsIn([x0, y0, x1, y1]) {
    const found = [];
    for (let at = 0; at < this.points.length; at++) {
      const to = this.points[at], from = this.points[Math.max(at - 1, 0)], r = Math.max(from[2], to[2]);
      const reaches =
        Math.max(from[0], to[0]) + r >= x0 && Math.min(from[0], to[0]) - r <= x1 &&
        Math.max(from[1], to[1]) + r >= y0 && Math.min(from[1], to[1]) - r <= y1;
      if (reaches) found.push([from, to]);
    }
    return found;
  }

  drawAt(context, segments, share) {
    if (!this.isEven) return context.fill(capsules(segments, share), "nonzero");
    context.lineWidth = Math.max(2 * this.points[0][2] * share, 1e-3);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    let end = null;
    for (const [from, to] of segments) {
      if (from !== end) context.moveTo(from[0], from[1]);
      context.lineTo(to[0], to[1]);
      end = to;
    }
    context.stroke();
  }
}

export class Polygon {
  constructor({ erase }) {
    Object.assign(this, { erase, points: [] });
  }

  add(x, y) {
    this.points.push([x, y]);
  }

  get box() {
    return boxAround(this.points, 1);
  }

  get path() {
    const path = new Path2D();
    for (const [x, y] of this.points) path.lineTo(x, y);
    path.closePath();
    return path;
  }

  draw(context, pixel) {
    if (this.isOpen) return this.drawOpen(context, pixel);
    context.globalCompositeOperation = this.erase ? "destination-out" : "source-over";
    context.fill(this.path, "evenodd");
  }

  /** The corners so far, and a line to where the pointer is. `pixel` is the width of one of the screen. */
  drawOpen(context, pixel) {
    const corners = this.tip ? [...this.points, this.tip] : this.points;
    context.globalCompositeOperation = "source-over";
    context.lineWidth = 2 * pixel;
    context.lineJoin = "round";
    context.beginPath();
    for (const [x, y] of corners) context.lineTo(x, y);
    context.stroke();
    for (const [x, y] of this.points) context.fillRect(x - 3 * pixel, y - 3 * pixel, 6 * pixel, 6 * pixel);
  }
}

function boxAround(points, margin) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  return [x0 - margin - 1, y0 - margin - 1, x1 + margin + 1, y1 + margin + 1];
}

/** Circles and the trapezoids between them, all in the same sense, so that together they fill without gaps. */
function capsules(segments, share) {
  const path = new Path2D();
  for (const [[x0, y0, before], [x, y, radius]] of segments) {
    const r0 = before * share, r = radius * share;
    for (const [cx, cy, cr] of [[x0, y0, r0], [x, y, r]]) {
      path.moveTo(cx + cr, cy);
      path.arc(cx, cy, cr, 0, 2 * Math.PI);
    }
    const length = Math.hypot(x - x0, y - y0);
    if (length < 1e-6) continue;
    const [nx, ny] = [(y0 - y) / length, (x - x0) / length];
    path.moveTo(x0 - nx * r0, y0 - ny * r0);
    path.lineTo(x - nx * r, y - ny * r);
    path.lineTo(x + nx * r, y + ny * r);
    path.lineTo(x0 + nx * r0, y0 + ny * r0);
    path.closePath();
  }
  return path;
}

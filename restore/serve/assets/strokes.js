// Strokes, polygons and lassos as they are drawn before the server has them in its mask. All coordinates are those of
// the upright image at full size.

const soft = 6; // steps of a soft edge

export class Stroke {
  constructor({ softness, erase }) {
    Object.assign(this, { softness, erase, points: [] });
    this.path = new Path2D(); // through the centers, while the radius stays the same
    this.isEven = true;
  }

  /** @returns {number[]} the box [x0, y0, x1, y1] that has to be drawn again */
  add(x, y, r) {
    const before = this.points[this.points.length - 1];
    this.points.push([x, y, r]);
    if (!before) {
      this.path.moveTo(x, y);
      this.path.lineTo(x, y);
      return boxAround([[x, y]], r);
    }
    this.path.lineTo(x, y);
    if (r !== before[2]) this.isEven = false;
    return boxAround([[x, y], before], Math.max(r, before[2]));
  }

  get box() {
    return boxAround(this.points, Math.max(...this.points.map((point) => point[2])));
  }

  /** @param {CanvasRenderingContext2D} context  in image coordinates, with the color of the mask */
  draw(context) {
    context.globalCompositeOperation = this.erase ? "destination-out" : "source-over";
    if (!this.softness) return this.drawAt(context, 1, 1);
    // From the rim inwards: every step raises the coverage to its own share.
    let reached = 0;
    for (let step = 1; step <= soft; step++) {
      const coverage = step / soft;
      this.drawAt(context, 1 - (this.softness * (step - 0.5)) / soft, 1 - (1 - coverage) / (1 - reached || 1));
      reached = coverage;
    }
  }

  drawAt(context, share, alpha) {
    context.globalAlpha = alpha;
    if (this.isEven) {
      context.lineWidth = Math.max(2 * this.points[0][2] * share, 1e-3);
      context.lineCap = context.lineJoin = "round";
      context.stroke(this.path);
    } else {
      context.fill(capsules(this.points, share), "nonzero");
    }
    context.globalAlpha = 1;
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
function capsules(points, share) {
  const path = new Path2D();
  points.forEach(([x, y, radius], at) => {
    const r = radius * share;
    path.moveTo(x + r, y);
    path.arc(x, y, r, 0, 2 * Math.PI);
    if (!at) return;
    const [x0, y0, before] = points[at - 1], r0 = before * share;
    const length = Math.hypot(x - x0, y - y0);
    if (length < 1e-6) return;
    const [nx, ny] = [(y0 - y) / length, (x - x0) / length];
    path.moveTo(x0 - nx * r0, y0 - ny * r0);
    path.lineTo(x - nx * r, y - ny * r);
    path.lineTo(x + nx * r, y + ny * r);
    path.lineTo(x0 + nx * r0, y0 + ny * r0);
    path.closePath();
  });
  return path;
}

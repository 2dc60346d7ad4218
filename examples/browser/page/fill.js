// The first guess in holes: harmonic interpolation from coarse to fine, as `harmonic_fill` of the toolkit computes it.

const SWEEPS = 6;

/** Fill holes smoothly.
 * @param {Float32Array} image three planes of height × width, [0, 1]
 * @param {Uint8Array} mask height × width, above 0 is a hole
 * @returns {Float32Array} the image, other pixels unchanged; 0.5 if it is all hole
 */
export function harmonicFill(image, mask, height, width) {
  const count = height * width;
  const weights = [{ height, width, data: Float32Array.from(mask, (one) => (one ? 0 : 1)) }];
  while (Math.max(weights.at(-1).height, weights.at(-1).width) > 1) weights.push(halved(weights.at(-1)));
  const free = weights.map(({ data }) => {
    const cells = [];
    data.forEach((weight, at) => weight < 0.25 && cells.push(at));
    return Uint32Array.from(cells);
  });
  const filled = new Float32Array(image);
  for (let channel = 0; channel < 3; channel++) {
    const plane = filled.subarray(channel * count, (channel + 1) * count);
    const levels = [{ height, width, data: plane.map((value, at) => (mask[at] ? 0 : value)) }];
    while (levels.length < weights.length) levels.push(halved(levels.at(-1)));
    const guess = fromCoarseToFine(levels, weights, free);
    for (let at = 0; at < count; at++) if (mask[at]) plane[at] = guess[at];
  }
  return filled;
}

function fromCoarseToFine(levels, weights, free) {
  let coarser = null;
  for (let level = levels.length - 1; level >= 0; level--) {
    const { height, width, data } = levels[level];
    const average = data.map((color, at) => color / Math.max(weights[level].data[at], 1e-8));
    if (height === 1 && width === 1) {
      if (weights[level].data[0] === 0) average[0] = 0.5;
    } else if (free[level].length) {
      // A cell that is mostly outside the mask keeps its own average, which is closer than that of its neighbors.
      sample(coarser, average, height, width, free[level]);
      smooth(average, height, width, free[level]);
    }
    coarser = { height, width, data: average };
  }
  return coarser.data;
}

/** Means of 2×2 cells; at an odd border, of the cells that are there. */
function halved({ height, width, data }) {
  const h = Math.ceil(height / 2), w = Math.ceil(width / 2), half = new Float32Array(h * w);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      let sum = 0, cells = 0;
      for (let v = 2 * y; v < Math.min(2 * y + 2, height); v++) {
        for (let u = 2 * x; u < Math.min(2 * x + 2, width); u++) { sum += data[v * width + u]; cells++; }
      }
      half[y * w + x] = sum / cells;
    }
  }
  return { height: h, width: w, data: half };
}

/** Bilinear samples of the coarser level, pixel centers aligned, at some cells of the finer one. */
function sample(coarser, target, height, width, cells) {
  const rows = coarser.height / height, columns = coarser.width / width, data = coarser.data;
  for (const at of cells) {
    const y = Math.max((Math.floor(at / width) + 0.5) * rows - 0.5, 0);
    const x = Math.max(((at % width) + 0.5) * columns - 0.5, 0);
    const top = Math.floor(y), left = Math.floor(x), dy = y - top, dx = x - left;
    const below = Math.min(top + 1, coarser.height - 1) * coarser.width, right = Math.min(left + 1, coarser.width - 1);
    const above = top * coarser.width;
    target[at] = (1 - dy) * ((1 - dx) * data[above + left] + dx * data[above + right]) +
      dy * ((1 - dx) * data[below + left] + dx * data[below + right]);
  }
}

/** Jacobi sweeps: every free cell becomes the mean of its four neighbors; beyond the border a cell is its own. */
function smooth(data, height, width, cells) {
  const next = new Float32Array(cells.length);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (let i = 0; i < cells.length; i++) {
      const at = cells[i], x = at % width;
      const above = at >= width ? at - width : at, below = at + width < height * width ? at + width : at;
      next[i] = (data[above] + data[below] + data[x ? at - 1 : at] + data[x + 1 < width ? at + 1 : at]) / 4;
    }
    for (let i = 0; i < cells.length; i++) data[cells[i]] = next[i];
  }
}

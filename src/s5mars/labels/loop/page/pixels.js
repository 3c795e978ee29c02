// Pure functions on masks: arrays of class indices, row by row; 255 is unpainted.

export const UNPAINTED = 255;
const KEEP = -1;

// A change in progress: remembers what each pixel was before it.
export class Stroke {
  constructor(mask, width, height) {
    this.mask = mask;
    this.width = width;
    this.height = height;
    this.before = new Map(); // row → copy of the row as it was
    this.left = width;
    this.top = height;
    this.right = 0;
    this.bottom = 0;
    this.fresh = null; // box of what is not on the screen yet
  }

  get empty() {
    return this.right <= this.left;
  }

  // The box (left, top, right, bottom) of what has changed since the last call; null: nothing.
  takeFresh() {
    const box = this.fresh;
    this.fresh = null;
    return box;
  }

  // Set the pixels from x0 up to x1 of a row.
  span(y, x0, x1, value) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width, x1);
    if (y < 0 || y >= this.height || x0 >= x1) return;
    const start = y * this.width;
    if (!this.before.has(y)) this.before.set(y, this.mask.slice(start, start + this.width));
    this.mask.fill(value, start + x0, start + x1);
    this.left = Math.min(this.left, x0);
    this.right = Math.max(this.right, x1);
    this.top = Math.min(this.top, y);
    this.bottom = Math.max(this.bottom, y + 1);
    this.fresh ??= [x0, y, x1, y + 1];
    const { fresh } = this;
    fresh[0] = Math.min(fresh[0], x0);
    fresh[1] = Math.min(fresh[1], y);
    fresh[2] = Math.max(fresh[2], x1);
    fresh[3] = Math.max(fresh[3], y + 1);
  }

  // What the server saves: a box and runs of values, −1 where nothing changed; null: no change.
  patch() {
    if (this.empty) return null;
    const { mask, left, right } = this;
    const runs = [];
    const add = (length, value) => {
      if (runs[runs.length - 1] === value) runs[runs.length - 2] += length;
      else runs.push(length, value);
    };
    for (let y = this.top; y < this.bottom; y += 1) {
      const before = this.before.get(y);
      if (!before) add(right - left, KEEP);
      const start = y * this.width;
      for (let x = left; before && x < right; ) {
        const from = x;
        while (x < right && before[x] === mask[start + x]) x += 1;
        if (x > from) add(x - from, KEEP);
        const first = x;
        const value = mask[start + x];
        while (x < right && mask[start + x] === value && before[x] !== value) x += 1;
        if (x > first) add(x - first, value);
      }
    }
    if (runs.length === 2 && runs[1] === KEEP) return null;
    return { box: [left, this.top, right - left, this.bottom - this.top], runs };
  }
}

// Everything within `radius` of the line from a to b.
export function paintLine(stroke, a, b, radius, value) {
  const top = Math.floor(Math.min(a.y, b.y) - radius);
  const bottom = Math.ceil(Math.max(a.y, b.y) + radius);
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const squared = dx * dx + dy * dy;
  for (let y = Math.max(0, top); y <= Math.min(stroke.height - 1, bottom); y += 1) {
    const py = y + 0.5;
    let from = Infinity;
    let to = -Infinity;
    for (const end of [a, b]) {
      const half = radius * radius - (py - end.y) ** 2;
      if (half > 0) {
        from = Math.min(from, end.x - Math.sqrt(half));
        to = Math.max(to, end.x + Math.sqrt(half));
      }
    }
    if (squared > 0) {
      // The band between the two discs: |cross| ≤ r·|d| and the foot lies on the line.
      const length = Math.sqrt(squared);
      const limits = [];
      if (Math.abs(dy) > 1e-9) {
        const middle = a.x + (dx * (py - a.y)) / dy;
        const reach = Math.abs((radius * length) / dy);
        limits.push([middle - reach, middle + reach]);
      } else if (Math.abs(py - a.y) > radius) {
        limits.push([1, 0]);
      }
      if (Math.abs(dx) > 1e-9) {
        const first = a.x - ((py - a.y) * dy) / dx;
        const last = a.x + (squared - (py - a.y) * dy) / dx;
        limits.push([Math.min(first, last), Math.max(first, last)]);
      } else {
        const foot = ((py - a.y) * dy) / squared;
        if (foot < 0 || foot > 1) limits.push([1, 0]);
      }
      const left = Math.max(...limits.map((l) => l[0]));
      const right = Math.min(...limits.map((l) => l[1]));
      if (left < right) {
        from = Math.min(from, left);
        to = Math.max(to, right);
      }
    }
    if (from < to) stroke.span(y, Math.round(from), Math.round(to), value);
  }
}

// The inside of a polygon by the even-odd rule, at pixel centres.
export function paintPolygon(stroke, points, value) {
  const ys = points.map((p) => p.y);
  const top = Math.max(0, Math.floor(Math.min(...ys)));
  const bottom = Math.min(stroke.height - 1, Math.ceil(Math.max(...ys)));
  for (let y = top; y <= bottom; y += 1) {
    const py = y + 0.5;
    const crossings = [];
    for (let i = 0; i < points.length; i += 1) {
      const a = points[i];
      const b = points[(i + 1) % points.length];
      if (a.y <= py !== b.y <= py) crossings.push(a.x + ((py - a.y) * (b.x - a.x)) / (b.y - a.y));
    }
    crossings.sort((m, n) => m - n);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      stroke.span(y, Math.round(crossings[i]), Math.round(crossings[i + 1]), value);
    }
  }
}

// Superpixels (ids row by row, 0 is none) with the pixels of each at hand: a search through a large
// image for every superpixel would hold up the stroke.
export class Regions {
  constructor(ids) {
    this.ids = ids;
    this.starts = new Uint32Array(2 ** 16 + 1);
    for (const id of ids) this.starts[id + 1] += 1;
    for (let id = 0; id < 2 ** 16; id += 1) this.starts[id + 1] += this.starts[id];
    const free = this.starts.slice();
    this.order = new Uint32Array(ids.length);
    for (let at = 0; at < ids.length; at += 1) {
      this.order[free[ids[at]]] = at;
      free[ids[at]] += 1;
    }
  }

  // All pixels of a superpixel in ascending order, connected or not.
  pixels(id) {
    return this.order.subarray(this.starts[id], this.starts[id + 1]);
  }
}

// Runs of pixels, [from, to, from, to, …] with each run in one row: a call for each pixel would take
// tens of milliseconds on a large image.

// The runs of pixels in ascending order.
export function runsOf(pixels, width) {
  const runs = [];
  for (let i = 0; i < pixels.length; ) {
    const from = pixels[i];
    const end = from - (from % width) + width;
    let to = from + 1;
    for (i += 1; to < end && pixels[i] === to; i += 1) to += 1;
    runs.push(from, to);
  }
  return runs;
}

// The runs of all pixels of the same value that are connected to a pixel. `seen` has a byte for each
// pixel: those with 1 are left out, and those of the runs become 1.
export function connected(values, width, start, seen) {
  const wanted = values[start];
  const runs = [];
  const waiting = [start];
  while (waiting.length) {
    const at = waiting.pop();
    if (seen[at]) continue;
    const row = at - (at % width);
    let left = at;
    while (left > row && values[left - 1] === wanted) left -= 1;
    let right = at + 1;
    while (right < row + width && values[right] === wanted) right += 1;
    seen.fill(1, left, right);
    runs.push(left, right);
    for (const shift of [-width, width]) {
      if (row + shift < 0 || row + shift >= values.length) continue;
      if (!seen.subarray(left + shift, right + shift).includes(0)) continue;
      let inside = false;
      for (let near = left + shift; near < right + shift; near += 1) {
        const open = values[near] === wanted && !seen[near];
        if (open && !inside) waiting.push(near);
        inside = open;
      }
    }
  }
  return runs;
}

export function paintRuns(stroke, runs, value) {
  const { width } = stroke;
  for (let i = 0; i < runs.length; i += 2) {
    const x = runs[i] % width;
    stroke.span((runs[i] - x) / width, x, x + runs[i + 1] - runs[i], value);
  }
}

// Paint the suggestion where its confidence is at least `least`. What is painted stays: a suggestion
// never overrules a person.
export function acceptRuns(stroke, runs, { suggestion, confidence }, least = 0) {
  const { mask, width } = stroke;
  for (let i = 0; i < runs.length; i += 2) {
    const to = runs[i + 1];
    const row = runs[i] - (runs[i] % width);
    for (let at = runs[i]; at < to; ) {
      const from = at;
      const value = suggestion[at];
      while (at < to && suggestion[at] === value && mask[at] === UNPAINTED && confidence[at] >= least) at += 1;
      if (at === from) at += 1;
      else if (value !== UNPAINTED) stroke.span(row / width, from - row, at - row, value);
    }
  }
}

// Write a patch of the server into a mask.
export function applyPatch(mask, width, patch) {
  const [left, top, columns] = patch.box;
  let at = 0;
  for (let i = 0; i < patch.runs.length; i += 2) {
    const value = patch.runs[i + 1];
    for (let end = at + patch.runs[i]; at < end; at += 1) {
      if (value !== KEEP) mask[(top + Math.floor(at / columns)) * width + left + (at % columns)] = value;
    }
  }
}

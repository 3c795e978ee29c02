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
    const runs = [];
    let value = null;
    let length = 0;
    let changed = false;
    for (let y = this.top; y < this.bottom; y += 1) {
      const before = this.before.get(y);
      const start = y * this.width;
      for (let x = this.left; x < this.right; x += 1) {
        const now = this.mask[start + x];
        const next = !before || before[x] === now ? KEEP : now;
        changed ||= next !== KEEP;
        if (next === value) {
          length += 1;
        } else {
          if (length) runs.push(length, value);
          value = next;
          length = 1;
        }
      }
    }
    runs.push(length, value);
    if (!changed) return null;
    return { box: [this.left, this.top, this.right - this.left, this.bottom - this.top], runs };
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

// Every pixel of the same value that is connected to a pixel, in runs along the rows.
export function connected(values, width, height, x, y) {
  const wanted = values[y * width + x];
  const seen = new Uint8Array(width * height);
  const found = new Uint32Array(width * height);
  let count = 0;
  const waiting = [y * width + x];
  while (waiting.length) {
    const start = waiting.pop();
    if (seen[start]) continue;
    const row = start - (start % width);
    let left = start;
    while (left > row && values[left - 1] === wanted) left -= 1;
    let right = start + 1;
    while (right < row + width && values[right] === wanted) right += 1;
    for (let at = left; at < right; at += 1) {
      seen[at] = 1;
      found[count] = at;
      count += 1;
    }
    for (const shift of [-width, width]) {
      if (row + shift < 0 || row + shift >= values.length) continue;
      let inside = false;
      for (let at = left + shift; at < right + shift; at += 1) {
        const open = values[at] === wanted && !seen[at];
        if (open && !inside) waiting.push(at);
        inside = open;
      }
    }
  }
  return found.subarray(0, count);
}

// Paint pixels in ascending runs; `valueAt` gives the value of a pixel, null to leave it.
export function paintPixels(stroke, pixels, valueAt) {
  const { width } = stroke;
  for (let i = 0; i < pixels.length; ) {
    const start = pixels[i];
    const y = Math.floor(start / width);
    const value = valueAt(start);
    let end = start + 1;
    for (i += 1; end < (y + 1) * width && pixels[i] === end && valueAt(end) === value; i += 1) end += 1;
    if (value !== null) stroke.span(y, start - y * width, end - y * width, value);
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

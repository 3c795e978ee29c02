// The canvas: the image, the layers over it, zoom and pan.

import { UNPAINTED } from "./pixels.js";

const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

function packed([red, green, blue], alpha) {
  return LITTLE_ENDIAN
    ? ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0
    : ((red << 24) | (green << 16) | (blue << 8) | alpha) >>> 0;
}

// One coloured layer of the size of the image.
class Layer {
  constructor(width, height) {
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext("2d");
    this.data = new ImageData(width, height);
    this.words = new Uint32Array(this.data.data.buffer);
    this.width = width;
  }

  // Colour the pixels of a rectangle: `row(words, from, to)` sets the packed RGBA of a part of a row.
  // A call for each pixel would take tens of milliseconds on a large image.
  fill([left, top, right, bottom], row) {
    if (left >= right || top >= bottom) return;
    for (let y = top; y < bottom; y += 1) row(this.words, y * this.width + left, y * this.width + right);
    this.context.putImageData(this.data, 0, 0, left, top, right - left, bottom - top);
  }
}

export class View {
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.paintColours = new Uint32Array(256);
    colours.forEach((colour, index) => {
      this.paintColours[index] = packed(colour, 255);
    });
    this.unsureColours = Uint32Array.from({ length: 256 }, (_, sure) => packed([255, 0, 200], 255 - sure));
    this.opacity = 0.6;
    this.overlay = "suggestion";
    this.overlayOpacity = 0.35;
    this.hidden = false;
    this.image = null;
    this.cursor = null; // what tools draw over the image, a function of the context
    this.pending = false;
    this.drawn = []; // called after the next drawing
    new ResizeObserver(() => this.resized()).observe(canvas);
  }

  get size() {
    return [0, 0, this.width, this.height];
  }

  show(image, mask) {
    const same = this.image && this.width === image.width && this.height === image.height;
    this.image = image;
    this.width = image.width;
    this.height = image.height;
    this.mask = mask;
    this.suggestion = null;
    this.confidence = null;
    this.outlines = null;
    this.paint = new Layer(this.width, this.height);
    this.suggested = new Layer(this.width, this.height);
    this.repaint(this.size);
    if (same) this.draw();
    else this.fit();
  }

  // The mask has changed in a rectangle.
  repaint(box) {
    const { mask, paintColours } = this;
    this.paint.fill(box, (words, from, to) => {
      for (let at = from; at < to; at += 1) words[at] = paintColours[mask[at]];
    });
    this.resuggest(box);
  }

  resuggest(box) {
    const { mask, suggestion, confidence, paintColours, unsureColours } = this;
    if (!suggestion || this.overlay === "none") return;
    const [colours, shown] =
      this.overlay === "uncertainty" ? [unsureColours, confidence] : [paintColours, suggestion];
    this.suggested.fill(box, (words, from, to) => {
      for (let at = from; at < to; at += 1) {
        words[at] = mask[at] === UNPAINTED && suggestion[at] !== UNPAINTED ? colours[shown[at]] : 0;
      }
    });
    this.draw();
  }

  suggest(suggestion, confidence) {
    this.suggestion = suggestion;
    this.confidence = confidence;
    this.resuggest(this.size);
  }

  // Thin lines between the regions of a level; null removes them.
  outline(regions) {
    this.outlines = null;
    if (regions) {
      this.outlines = new Layer(this.width, this.height);
      const { width } = this;
      const line = packed([255, 255, 255], 150);
      this.outlines.fill(this.size, (words, from, to) => {
        for (let at = from; at < to; at += 1) {
          const right = at + 1 < to && regions[at] !== regions[at + 1];
          const below = at + width < regions.length && regions[at] !== regions[at + width];
          words[at] = right || below ? line : 0;
        }
      });
    }
    this.draw();
  }

  resized() {
    const box = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    this.ratio = ratio;
    if (!this.image) return;
    if (this.fitted) this.fit();
    else this.draw();
  }

  fit() {
    const box = this.canvas.getBoundingClientRect();
    this.scale = Math.min((box.width - 24) / this.width, (box.height - 24) / this.height);
    this.left = (box.width - this.width * this.scale) / 2;
    this.top = (box.height - this.height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  // Zoom around a place of the canvas; its middle without one.
  zoom(factor, place) {
    const box = this.canvas.getBoundingClientRect();
    const x = place ? place.clientX - box.left : box.width / 2;
    const y = place ? place.clientY - box.top : box.height / 2;
    const scale = Math.min(40, Math.max(0.02, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.draw();
  }

  // A place of the window in pixels of the image.
  inImage(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: (event.clientX - box.left - this.left) / this.scale,
      y: (event.clientY - box.top - this.top) / this.scale,
    };
  }

  // Pan just so far that a place of the image is in sight.
  reveal({ x, y }) {
    const box = this.canvas.getBoundingClientRect();
    const margin = 30;
    const at = { x: this.left + x * this.scale, y: this.top + y * this.scale };
    const dx = Math.max(0, margin - at.x) - Math.max(0, at.x - box.width + margin);
    const dy = Math.max(0, margin - at.y) - Math.max(0, at.y - box.height + margin);
    if (dx || dy) this.pan(dx, dy);
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.drawNow();
      const done = this.drawn;
      this.drawn = [];
      done.forEach((call) => call());
    });
  }

  drawNow() {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.image) return;
    const k = this.ratio * this.scale;
    context.setTransform(k, 0, 0, k, this.ratio * this.left, this.ratio * this.top);
    context.imageSmoothingEnabled = k < 2;
    context.drawImage(this.image, 0, 0);
    if (!this.hidden) {
      context.imageSmoothingEnabled = k < 1;
      if (this.overlay !== "none" && this.suggestion) {
        context.globalAlpha = this.overlayOpacity;
        context.drawImage(this.suggested.canvas, 0, 0);
      }
      context.globalAlpha = this.opacity;
      context.drawImage(this.paint.canvas, 0, 0);
      context.globalAlpha = 1;
      if (this.outlines) context.drawImage(this.outlines.canvas, 0, 0);
    }
    if (this.cursor) this.cursor(context, k / this.ratio);
  }
}

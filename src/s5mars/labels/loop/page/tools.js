// What the pointer and the keyboard do on the image.

import {
  Stroke,
  UNPAINTED,
  acceptRuns,
  connected,
  paintLine,
  paintPolygon,
  paintRuns,
  runsOf,
} from "./pixels.js";

export const TOOLS = {
  brush: { title: "Brush", key: "b", hint: "Drag to paint; the right button erases." },
  eraser: { title: "Eraser", key: "e", hint: "Drag to erase." },
  superpixel: { title: "Superpixel", key: "s", hint: "Click or drag over superpixels to fill them." },
  polygon: { title: "Polygon", key: "p", hint: "Click the corners; Enter or a double click closes it." },
  accept: { title: "Accept", key: "a", hint: "Click where the suggestion is right: it becomes a label." },
};

export class Toolbox {
  // `finish(patch, tool)` saves a stroke; `settings` are the controls of the page.
  constructor(view, settings, finish) {
    this.view = view;
    this.settings = settings;
    this.finish = finish;
    this.tool = "brush";
    this.stroke = null;
    this.points = [];
    this.cursor = null; // {x, y} in the image
    this.regions = null; // superpixels of the chosen level, as Regions
    this.locked = true; // no image yet, or the server has taken over
    this.space = false;
    this.panning = null;
    this.listen(view.canvas);
    view.cursor = (context, scale) => this.drawCursor(context, scale);
  }

  choose(tool) {
    this.drop();
    this.tool = tool;
    this.view.draw();
  }

  // Forget the corners of a polygon.
  drop() {
    this.points = [];
    this.view.draw();
  }

  // Forget all that is begun, because another mask is shown.
  cancel() {
    this.stroke = null;
    this.erasing = false;
    this.drop();
  }

  get value() {
    return this.tool === "eraser" || this.erasing ? UNPAINTED : this.settings.value();
  }

  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(type, (event) => this.up(event));
    }
    canvas.addEventListener("pointerleave", () => {
      if (!this.stroke) {
        this.cursor = null;
        this.view.draw();
      }
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", (event) => this.close(event.timeStamp));
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (!this.locked) this.view.zoom(Math.exp(-event.deltaY * 0.0015), event);
      },
      { passive: false },
    );
  }

  down(event) {
    if (this.locked || this.stroke) return;
    this.view.canvas.focus({ preventScroll: true });
    this.view.canvas.setPointerCapture(event.pointerId);
    if (event.button === 1 || this.space) {
      event.preventDefault();
      this.panning = event;
      return;
    }
    this.erasing = event.button === 2;
    this.begin(this.view.inImage(event), event.timeStamp);
  }

  move(event) {
    if (this.locked) return;
    if (this.panning) {
      this.view.pan(event.clientX - this.panning.clientX, event.clientY - this.panning.clientY);
      this.panning = event;
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.to(this.view.inImage(each));
    if (this.stroke) this.measure(event.timeStamp);
    this.view.draw();
  }

  up() {
    this.panning = null;
    this.end();
  }

  // How long a stroke takes to appear, in the browser's own record of times.
  measure(since) {
    this.view.drawn.push(() => {
      const entries = performance.getEntriesByName("stroke");
      if (entries.length > 500) performance.clearMeasures("stroke");
      performance.measure("stroke", { start: since, end: performance.now() });
    });
  }

  begin(place, time) {
    if (this.locked || this.stroke) return; // the keyboard and a second finger begin strokes, too
    this.cursor = place;
    if (this.tool === "polygon" && !this.erasing) {
      this.points.push(place);
      this.view.draw();
      return;
    }
    this.stroke = new Stroke(this.view.mask, this.view.width, this.view.height);
    this.last = place;
    this.filled = new Set();
    this.seen = null; // pixels of the suggestion's regions that this stroke has accepted
    this.apply(place, place);
    this.measure(time);
    this.view.draw();
  }

  to(place) {
    this.cursor = place;
    if (this.stroke) this.apply(this.last, place);
    this.last = place;
  }

  end() {
    const { stroke } = this;
    this.stroke = null;
    const tool = this.erasing ? "eraser" : this.tool;
    this.erasing = false;
    if (stroke) this.save(stroke, tool);
  }

  save(stroke, tool) {
    const patch = stroke.patch();
    if (patch) this.finish(patch, tool);
  }

  apply(from, to) {
    const { stroke, view } = this;
    if (this.erasing || this.tool === "brush" || this.tool === "eraser") {
      const radius = this.settings.size() / 2;
      paintLine(stroke, from, to, radius, this.value);
      this.refresh();
      return;
    }
    const [x, y] = [Math.floor(to.x), Math.floor(to.y)];
    if (x < 0 || y < 0 || x >= view.width || y >= view.height) return;
    const at = y * view.width + x;
    if (this.tool === "superpixel") this.fillSuperpixel(at);
    else if (this.tool === "accept") this.acceptAt(at);
  }

  fillSuperpixel(at) {
    if (!this.regions) {
      this.settings.say("The superpixels of this image are being made; the brush works meanwhile.");
      return;
    }
    const region = this.regions.ids[at];
    if (region === 0 || this.filled.has(region)) return;
    this.filled.add(region);
    paintRuns(this.stroke, runsOf(this.regions.pixels(region), this.view.width), this.value);
    this.refresh();
  }

  acceptAt(at) {
    const { view } = this;
    const { suggestion, width } = view;
    if (!suggestion) {
      this.settings.say("There is no suggestion yet: paint two classes first.");
      return;
    }
    if (suggestion[at] === UNPAINTED) return;
    let runs;
    if (this.settings.acceptWhat() === "superpixel") {
      if (!this.regions) {
        this.settings.say("The superpixels of this image are being made; accept whole regions meanwhile.");
        return;
      }
      const region = this.regions.ids[at];
      if (region === 0 || this.filled.has(region)) return;
      this.filled.add(region);
      runs = runsOf(this.regions.pixels(region), width);
    } else {
      this.seen ??= new Uint8Array(suggestion.length);
      runs = connected(suggestion, width, at, this.seen);
    }
    acceptRuns(this.stroke, runs, view);
    this.refresh();
  }

  // Whether there was anything to accept.
  acceptConfident(least) {
    const { view } = this;
    const { mask, width, height } = view;
    if (!view.suggestion || this.locked) return false;
    const stroke = new Stroke(mask, width, height);
    const rows = Array.from({ length: height }, (_, y) => [y * width, (y + 1) * width]);
    acceptRuns(stroke, rows.flat(), view, least);
    if (stroke.empty) return false;
    view.repaint(stroke.takeFresh());
    view.draw();
    this.save(stroke, "accept");
    return true;
  }

  // Close the polygon.
  close(since = performance.now()) {
    if (this.locked || this.stroke) return;
    const points = this.points.filter(
      (p, i, all) => i === 0 || Math.hypot(p.x - all[i - 1].x, p.y - all[i - 1].y) > 0.5,
    );
    this.points = [];
    if (points.length >= 3) {
      this.stroke = new Stroke(this.view.mask, this.view.width, this.view.height);
      paintPolygon(this.stroke, points, this.value);
      this.refresh();
      this.measure(since);
      this.end();
    }
    this.view.draw();
  }

  // Show what the stroke has changed since the last call.
  refresh() {
    const box = this.stroke.takeFresh();
    if (box) this.view.repaint(box);
    this.view.draw();
  }

  // Keys on the image itself; true if the key was used.
  key(event) {
    const step = (event.shiftKey ? 40 : 4) / this.view.scale;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      const { view } = this;
      const from = this.cursor ?? { x: view.width / 2, y: view.height / 2 };
      const [dx, dy] = moves[event.key];
      this.cursor = {
        x: Math.min(view.width - 0.5, Math.max(0.5, from.x + dx * step)),
        y: Math.min(view.height - 0.5, Math.max(0.5, from.y + dy * step)),
      };
      view.reveal(this.cursor);
      view.draw();
      return true;
    }
    if (event.key === "Enter") {
      if (this.tool === "polygon" && event.shiftKey) this.close();
      else if (this.tool === "polygon" && this.points.length >= 3 && this.atLastPoint()) this.close();
      else if (this.cursor) {
        this.begin(this.cursor, event.timeStamp);
        this.end();
      }
      return true;
    }
    return false;
  }

  atLastPoint() {
    const last = this.points[this.points.length - 1];
    return !this.cursor || Math.hypot(last.x - this.cursor.x, last.y - this.cursor.y) < 3 / this.view.scale;
  }

  drawCursor(context, scale) {
    const { cursor } = this;
    context.lineWidth = 1.5 / scale;
    if (this.points.length) {
      context.beginPath();
      for (const p of this.points) context.lineTo(p.x, p.y);
      if (cursor) context.lineTo(cursor.x, cursor.y);
      this.strokeTwice(context, scale);
    }
    if (!cursor || this.locked) return;
    context.beginPath();
    if (this.tool === "brush" || this.tool === "eraser") {
      context.arc(cursor.x, cursor.y, Math.max(this.settings.size() / 2, 1 / scale), 0, 7);
    } else {
      const arm = 7 / scale;
      context.moveTo(cursor.x - arm, cursor.y);
      context.lineTo(cursor.x + arm, cursor.y);
      context.moveTo(cursor.x, cursor.y - arm);
      context.lineTo(cursor.x, cursor.y + arm);
    }
    this.strokeTwice(context, scale);
    const fills = this.tool === "superpixel" || (this.tool === "accept" && this.settings.acceptWhat() === "superpixel");
    // During a stroke the paint itself shows the region.
    if (fills && this.regions && !this.stroke) this.drawRegion(context, scale, cursor);
  }

  // Light on dark, to be seen on any image.
  strokeTwice(context, scale) {
    context.lineWidth = 3 / scale;
    context.strokeStyle = "rgb(0 0 0 / .55)";
    context.stroke();
    context.lineWidth = 1.4 / scale;
    context.strokeStyle = "#fff";
    context.stroke();
  }

  // The outline of the superpixel under the cursor.
  drawRegion(context, scale, { x, y }) {
    const { width, height } = this.view;
    [x, y] = [Math.floor(x), Math.floor(y)];
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const region = this.regions.ids[y * width + x];
    if (!region) return;
    if (this.hovered !== region || this.hoveredRegions !== this.regions) {
      this.hovered = region;
      this.hoveredRegions = this.regions;
      this.path = this.outlineOf(region);
    }
    context.lineWidth = 3 / scale;
    context.strokeStyle = "rgb(0 0 0 / .55)";
    context.stroke(this.path);
    context.lineWidth = 1.6 / scale;
    context.strokeStyle = "#fff";
    context.stroke(this.path);
  }

  // Edges of one row or column are joined where they continue: a large region has many pixels.
  outlineOf(region) {
    const { width, height } = this.view;
    const { ids } = this.regions;
    const path = new Path2D();
    const line = (x0, y0, x1, y1) => {
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    };
    const pixels = this.regions.pixels(region);
    // Where the edges above and below this row began; −1: there is none.
    let above = -1;
    let below = -1;
    let y = 0;
    let x = -1;
    for (let i = 0; i <= pixels.length; i += 1) {
      const at = pixels[i];
      const goesOn = i < pixels.length && x + 1 < width && at === y * width + x + 1;
      const open = i < pixels.length && (at < width || ids[at - width] !== region);
      const shut = i < pixels.length && (at >= width * (height - 1) || ids[at + width] !== region);
      if (above >= 0 && !(goesOn && open)) {
        line(above, y, x + 1, y);
        above = -1;
      }
      if (below >= 0 && !(goesOn && shut)) {
        line(below, y + 1, x + 1, y + 1);
        below = -1;
      }
      if (!goesOn) {
        if (i > 0) line(x + 1, y, x + 1, y + 1);
        if (i === pixels.length) break;
        y = Math.floor(at / width);
        x = at - y * width;
        line(x, y, x, y + 1);
      } else x += 1;
      if (open && above < 0) above = x;
      if (shut && below < 0) below = x;
    }
    return path;
  }
}

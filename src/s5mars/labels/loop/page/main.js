// Ties the page together: opening images, saving strokes, keys, polling.

import * as api from "./api.js";
import { ImageList, Panels, make } from "./panels.js";
import { Regions, applyPatch } from "./pixels.js";
import { TOOLS, Toolbox } from "./tools.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const POLL = 1000;

let setup;
let view;
let tools;
let panels;
let current = null; // {name, version, undo, redo}
let chosen = 0; // index of the class
let state = null;
let opening = 0; // number of the newest request to open an image
let loading = false; // that request is not answered yet
const unsaved = []; // strokes that the server has not confirmed, oldest first
let saving = false;
let lost = false; // the server does not answer

function say(text) {
  byId("notice").hidden = !text;
  byId("notice").querySelector("span").textContent = text;
}

// Changes of the mask: strokes, undo and redo, which the server gets one after the other.

function showSaved() {
  const node = byId("saved");
  node.classList.toggle("waiting", unsaved.length > 0);
  node.textContent = lost
    ? "not saved: no answer from the server"
    : unsaved.length
      ? "saving …"
      : "saved";
  byId("undo").disabled = !unsaved.length && !(current?.undo > 0);
  byId("redo").disabled = unsaved.length > 0 || !(current?.redo > 0);
}

// A change belongs to the image that it was made on, whichever is current when it is sent.
function finish(patch, tool) {
  unsaved.push({ on: current, tool, ...patch });
  save();
}

function turn(which) {
  if (!current || loading || tools.stroke) return;
  unsaved.push({ on: current, turn: which });
  lock();
  save();
}

// No stroke may come between an undo and its answer, or begin on an image that is being replaced.
function lock() {
  tools.locked = !current || loading || unsaved.some((change) => change.turn);
}

async function save() {
  showSaved();
  if (saving) return;
  saving = true;
  while (unsaved.length) {
    const { on, turn: which, ...change } = unsaved[0];
    try {
      const { name: image, version } = on;
      const answer = await api.post(which ?? "paint", { ...change, image, version });
      unsaved.shift();
      lost = false;
      on.version = answer.version;
      if (which) turned(on, answer);
      else Object.assign(on, { undo: on.undo + 1, redo: 0 });
    } catch (error) {
      // An error of the server itself (500) would come again; a full disk (507) may be freed.
      if (error instanceof api.Refused && error.status <= 500) {
        unsaved.length = 0;
        tools.cancel(); // it was begun on the refused version
        say(error.status < 500 ? error.message : `Not saved: ${error.message}; its terminal shows why.`);
        await load(current.name, { keepMessage: true });
      } else {
        lost = true;
        if (error instanceof api.Refused) say(error.message);
        showSaved();
        await new Promise((done) => setTimeout(done, 1500));
      }
    }
    showSaved();
  }
  saving = false;
}

function turned(on, { patch, undo, redo }) {
  Object.assign(on, { undo, redo });
  lock();
  if (!patch || on !== current) return;
  applyPatch(view.mask, view.width, patch);
  const [left, top, width, height] = patch.box;
  view.repaint([left, top, left + width, top + height]);
  view.draw();
}

async function settled() {
  while (unsaved.length) await new Promise((done) => setTimeout(done, 20));
}

// Images

async function load(name, { keepMessage = false } = {}) {
  const number = ++opening;
  loading = true;
  lock();
  tools.end();
  await settled();
  byId("hint").textContent = "Opening …";
  try {
    const [blob, mask] = await Promise.all([
      api.picture("image", { image: name }),
      api.bytes("mask", { image: name }),
    ]);
    const bitmap = await createImageBitmap(blob);
    if (number !== opening) return;
    const header = (key) => Number(mask.headers.get(`x-${key}`));
    current = { name, version: header("version"), undo: header("undo"), redo: header("redo") };
    view.show(bitmap, new Uint8Array(mask.buffer));
    suggested = null;
    tools.regions = null;
    loadedRegions = null;
    loading = false;
    lock();
    tools.cancel();
    if (!keepMessage) say("");
    history.replaceState(null, "", `?image=${encodeURIComponent(name)}${location.hash}`);
    document.title = `${name} – s5mars label`;
    api.post("status", { image: name, status: "seen" });
    showHint();
    showSaved();
    poll();
  } catch (error) {
    if (number === opening) {
      loading = false;
      lock();
      showHint();
      say(error.message);
    }
  }
}

function next() {
  const ahead = state?.queue.find((each) => each.name !== current?.name);
  if (ahead) load(ahead.name);
  else say("No image is left to paint; “All images” shows every one.");
}

async function mark(status) {
  if (!current) return;
  await settled();
  await api.post("status", { image: current.name, status }).catch((error) => say(error.message));
  next();
}

// Suggestions and superpixels

let suggested = null; // what is shown: "image source key"
let loadedRegions = null; // "image level"
let fetching = { suggestion: false, regions: false };

async function once(what, work) {
  if (fetching[what]) return;
  fetching[what] = true;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof TypeError)) say(error.message);
  }
  fetching[what] = false;
}

// A layer of a large image takes a while to draw: not while somebody paints.
async function betweenStrokes() {
  while (tools.stroke) await new Promise((done) => setTimeout(done, 50));
}

function updateSuggestion() {
  if (!current || !state) return;
  const source = byId("source").value;
  const key = source === "head" ? state.current?.suggestion : source;
  if (!key) return;
  const { name } = current;
  const wanted = `${name} ${source} ${key}`;
  if (suggested === wanted) return;
  once("suggestion", async () => {
    const answer = await api.bytes("suggestion", { image: name, source });
    await betweenStrokes();
    if (!answer || current.name !== name || byId("source").value !== source) return;
    const size = view.width * view.height;
    const all = new Uint8Array(answer.buffer);
    view.suggest(all.subarray(0, size), all.subarray(size));
    suggested = `${name} ${source} ${answer.headers.get("x-key")}`;
    showHint();
  });
}

function updateRegions() {
  if (!current || !state?.current?.superpixels) return;
  const level = byId("level").value;
  const { name } = current;
  const wanted = `${name} ${level}`;
  if (loadedRegions === wanted) return;
  once("regions", async () => {
    const answer = await api.bytes("superpixels", { image: name, level });
    if (!answer || current.name !== name) return;
    await betweenStrokes();
    if (current.name !== name) return;
    tools.regions = new Regions(new Uint16Array(answer.buffer));
    loadedRegions = wanted;
    showOutlines();
    showHint();
  });
}

function showOutlines() {
  view.outline(byId("outlines").checked && tools.regions ? tools.regions.ids : null);
}

// Polling

let timer = null;

async function poll() {
  clearTimeout(timer);
  const asked = current?.name;
  try {
    const found = await api.get("state", asked ? { image: asked } : {});
    if (lost && !unsaved.length) {
      lost = false;
      showSaved();
    }
    if (asked !== current?.name) return;
    state = found;
    panels.update(state, asked);
    showSources(state.training.finished);
    showFacts();
    if (current && state.current) await compare();
    updateSuggestion();
    updateRegions();
  } catch (error) {
    if (error instanceof api.Refused && error.status === 401) {
      say("The server was started again: open the address that it printed.");
    } else {
      lost = true;
    }
    showSaved();
  } finally {
    clearTimeout(timer);
    timer = setTimeout(poll, POLL);
  }
}

// Somebody else has painted this image: show it, unless this tab has strokes that are not saved,
// which the server will refuse with a message.
async function compare() {
  const { version } = state.current;
  if (version <= current.version || unsaved.length || tools.stroke || saving || loading) return;
  say("This image was painted in another tab or by another person; the newest mask is shown now.");
  await load(current.name, { keepMessage: true });
}

let newestRun = null;

function showSources(finished) {
  const select = byId("source");
  const last = finished[finished.length - 1] ?? null;
  const shown = [...select.options].map((option) => option.value).join();
  if (shown !== ["head", ...finished].join()) {
    const value = select.value;
    select.replaceChildren(
      make("option", { value: "head", textContent: "quick head" }),
      ...finished.map((run) => make("option", { value: run, textContent: `run ${run}` })),
    );
    select.value = value;
  }
  if (last !== newestRun) {
    // The maps of a run that has just ended become the suggestions.
    if (last) select.value = last;
    newestRun = last;
  }
}

function showFacts() {
  byId("title").textContent = current ? current.name : setup.folder;
  const facts = [];
  const split = state.current?.split;
  if (split === "val") facts.push("held back for the score");
  else if (split && split !== "train") facts.push(`of the split ${split}`);
  if (state.current?.status !== "open" && state.current) facts.push(state.current.status);
  if (current) facts.push(`${view.width}×${view.height}`);
  byId("facts").textContent = facts.join(" · ");
  const ahead = state.queue.find((each) => each.name === current?.name);
  byId("reason").textContent = ahead ? `Why this one: ${ahead.reason}.` : "";
  const work = [];
  if (state.waiting) work.push(`features of ${state.featured} of ${state.featured + state.waiting} images`);
  if (state.current?.failed) work.push(state.current.failed);
  byId("hint").dataset.work = work.join("; ");
  showHint();
}

function showHint() {
  const hint = byId("hint");
  const parts = [TOOLS[tools.tool].hint];
  if (!current) parts[0] = "";
  else if (state && !state.learned) parts.push("Suggestions appear when two classes are painted.");
  else if (tools.tool === "superpixel" && !tools.regions) parts.push("The superpixels are being made …");
  if (hint.dataset.work) parts.push(`In the background: ${hint.dataset.work}.`);
  hint.textContent = parts.join(" ");
}

// Controls

function chooseClass(index) {
  if (index < 0 || index >= setup.classes.length) return;
  chosen = index;
  byId("classes").querySelectorAll("input")[index].checked = true;
  if (tools.tool === "eraser") chooseTool("brush");
}

function chooseTool(tool) {
  tools.choose(tool);
  byId("tools").querySelector(`input[value="${tool}"]`).checked = true;
  byId("brush-options").hidden = tool !== "brush" && tool !== "eraser";
  byId("level-options").hidden = tool !== "superpixel" && tool !== "accept";
  byId("accept-options").hidden = tool !== "accept";
  showHint();
}

function nudge(id, by) {
  const input = byId(id);
  input.value = Number(input.value) + by;
  input.dispatchEvent(new Event("input"));
}

function buildControls() {
  setup.classes.forEach((each, index) => {
    const input = make("input", { type: "radio", name: "class", checked: index === 0 });
    input.addEventListener("change", () => chooseClass(index));
    const swatch = make("span", { className: "swatch" });
    swatch.style.setProperty("--c", each.colour);
    const key = index < 9 ? make("kbd", { textContent: index + 1 }) : "";
    byId("classes").append(make("label", { title: each.criterion }, input, swatch, make("span", { textContent: each.name }), key));
  });
  for (const [name, tool] of Object.entries(TOOLS)) {
    const input = make("input", { type: "radio", name: "tool", value: name, checked: name === "brush" });
    input.addEventListener("change", () => chooseTool(name));
    byId("tools").append(
      make("label", {}, input, make("span", { textContent: tool.title }), make("kbd", { textContent: tool.key.toUpperCase() })),
    );
  }
  byId("level").max = setup.levels - 1;
  byId("model").textContent = setup.model;
  const levelNames = ["fine", "medium", "coarse", "coarsest"];
  const shown = {
    size: (v) => `${v} px`,
    level: (v) => levelNames[v] ?? v,
    confident: (v) => `${v} %`,
    opacity: (v) => `${v} %`,
    "overlay-opacity": (v) => `${v} %`,
  };
  const changed = {
    level: () => updateRegions(),
    opacity: (v) => (view.opacity = v / 100),
    "overlay-opacity": (v) => (view.overlayOpacity = v / 100),
  };
  for (const [id, text] of Object.entries(shown)) {
    const input = byId(id);
    const update = () => {
      byId(`${id}-shown`).textContent = text(input.value);
      changed[id]?.(Number(input.value));
      view.draw();
    };
    input.addEventListener("input", update);
    update();
  }
  byId("overlay").addEventListener("change", () => {
    view.overlay = byId("overlay").value;
    if (view.image) view.resuggest(view.size);
    view.draw();
  });
  byId("source").addEventListener("change", updateSuggestion);
  byId("outlines").addEventListener("change", showOutlines);
  byId("accept-all").addEventListener("click", acceptAll);
  byId("undo").addEventListener("click", () => turn("undo"));
  byId("redo").addEventListener("click", () => turn("redo"));
  byId("zoom-in").addEventListener("click", () => view.zoom(1.4));
  byId("zoom-out").addEventListener("click", () => view.zoom(1 / 1.4));
  byId("zoom-fit").addEventListener("click", () => view.fit());
  byId("done").addEventListener("click", () => mark("done"));
  byId("skip").addEventListener("click", () => mark("skipped"));
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("notice").querySelector("button").addEventListener("click", () => say(""));
}

function acceptAll() {
  const least = (Number(byId("confident").value) * 255) / 100;
  if (!tools.acceptConfident(least)) say("No unpainted pixel has a suggestion of this confidence.");
}

function onKey(event) {
  const typing = event.target.closest("input:not([type=radio]):not([type=range]):not([type=checkbox]), select, textarea, dialog");
  if (typing || !view.image) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") turn(event.shiftKey ? "redo" : "undo");
    else if (key === "y") turn("redo");
    else return;
    event.preventDefault();
    return;
  }
  if (event.altKey) return;
  const onCanvas = event.target === view.canvas;
  if (onCanvas && tools.key(event)) {
    event.preventDefault();
    return;
  }
  const tool = Object.keys(TOOLS).find((name) => TOOLS[name].key === key);
  const wheel = tools.tool === "superpixel" || tools.tool === "accept" ? ["level", 1] : ["size", 4];
  const actions = {
    "[": () => nudge(wheel[0], -wheel[1]),
    "]": () => nudge(wheel[0], wheel[1]),
    "+": () => view.zoom(1.4),
    "=": () => view.zoom(1.4),
    "-": () => view.zoom(1 / 1.4),
    0: () => view.fit(),
    c: acceptAll,
    d: () => mark("done"),
    x: () => mark("skipped"),
    n: next,
    enter: () => tools.points.length && tools.close(),
    escape: () => tools.drop(),
    o: () => {
      const select = byId("overlay");
      select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
      select.dispatchEvent(new Event("change"));
    },
    h: () => {
      view.hidden = true;
      view.draw();
    },
    "?": () => byId("help").showModal(),
  };
  if (/^[1-9]$/.test(key)) chooseClass(Number(key) - 1);
  else if (tool) chooseTool(tool);
  else if (key === " " && (onCanvas || event.target === document.body)) {
    tools.space = true;
    event.preventDefault();
  } else if (key in actions && !(key === "enter" && !tools.points.length)) actions[key]();
}

function onKeyUp(event) {
  if (event.key === " ") tools.space = false;
  if (event.key.toLowerCase() === "h") {
    view.hidden = false;
    view.draw();
  }
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

async function start() {
  try {
    setup = await api.get("setup");
  } catch (error) {
    say(error.message);
    return;
  }
  view = new View(byId("canvas"), setup.classes.map((each) => rgb(each.colour)));
  const settings = {
    value: () => chosen,
    size: () => Number(byId("size").value),
    acceptWhat: () => byId("accept-what").value,
    say,
  };
  tools = new Toolbox(view, settings, finish);
  panels = new Panels(setup, { open: load, say });
  new ImageList(load);
  buildControls();
  chooseTool("brush");
  addEventListener("keydown", onKey);
  addEventListener("keyup", onKeyUp);
  addEventListener("beforeunload", (event) => {
    if (unsaved.length) event.preventDefault();
  });
  view.resized();
  await poll();
  const asked = new URLSearchParams(location.search).get("image");
  const first = asked ?? state?.queue[0]?.name ?? (await api.get("images")).images[0]?.name;
  if (first) await load(first);
}

start();

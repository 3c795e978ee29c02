// The right side: the queue, the numbers, training.

import * as api from "./api.js";
import { drawChart } from "./chart.js";

const byId = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

// Thumbnails are fetched with the token, so they are blobs; each is fetched once.
const thumbnails = new Map();

export function thumbnail(image, query, alt) {
  const key = JSON.stringify(query);
  image.alt = alt;
  if (image.dataset.key === key) return;
  image.dataset.key = key;
  if (!thumbnails.has(key)) {
    thumbnails.set(
      key,
      api.picture("thumbnail", query).then((blob) => (blob ? URL.createObjectURL(blob) : null)),
    );
  }
  thumbnails.get(key).then(
    (url) => {
      if (url && image.dataset.key === key) image.src = url;
      if (!url) {
        thumbnails.delete(key);
        delete image.dataset.key;
      }
    },
    () => {
      thumbnails.delete(key);
      delete image.dataset.key;
    },
  );
}

export class Panels {
  constructor(setup, { open, say }) {
    this.setup = setup;
    this.open = open;
    this.say = say;
    this.areas = setup.classes.map((each) => {
      const bar = make("i");
      bar.style.setProperty("--c", each.colour);
      const share = make("span");
      byId("areas").append(make("div", {}, make("b", { textContent: each.name }), bar, share));
      return { bar, share };
    });
    for (const method of setup.methods) byId("method").append(make("option", { value: method, textContent: method }));
    byId("steps").value = setup.steps;
    byId("train").addEventListener("submit", (event) => {
      event.preventDefault();
      const body = { method: byId("method").value, steps: Number(byId("steps").value) };
      api.post("train", body).then(() => this.say(""), (error) => this.say(error.message));
    });
    byId("stop").addEventListener("click", () => {
      api.post("stop", {}).catch((error) => this.say(error.message));
    });
    byId("log-box").addEventListener("toggle", () => this.readLog());
  }

  update(state, current) {
    this.state = state;
    this.queue(state.queue.filter(({ name }) => name !== current).slice(0, 3));
    this.numbers(state);
    this.training(state.training, state.maps);
  }

  queue(ahead) {
    const holder = byId("queue");
    while (holder.children.length > ahead.length) holder.lastChild.remove();
    ahead.forEach(({ name, reason }, index) => {
      let item = holder.children[index];
      if (!item) {
        const button = make("button", { type: "button" }, make("img"), make("span", {}, make("b"), make("small")));
        button.addEventListener("click", () => this.open(button.dataset.name));
        item = make("li", {}, button);
        holder.append(item);
      }
      const button = item.firstChild;
      button.dataset.name = name;
      thumbnail(button.querySelector("img"), { image: name }, "");
      button.querySelector("b").textContent = name.split("/").pop();
      button.querySelector("b").title = name;
      button.querySelector("small").textContent = reason;
    });
    byId("queue-empty").hidden = ahead.length > 0;
  }

  numbers(state) {
    const { minutes, painted, images, done, scores, held_back: heldBack } = state;
    const score = scores.length ? `${scores[scores.length - 1][1].toFixed(1)} %` : "–";
    const facts = [
      ["minutes", minutes < 10 ? minutes.toFixed(1) : Math.round(minutes)],
      ["painted", `${painted} of ${images}`],
      ["done", done],
      ["mIoU", score],
    ];
    byId("numbers").replaceChildren(
      ...facts.map(([term, value]) => make("div", {}, make("dd", { textContent: value }), make("dt", { textContent: term }))),
    );
    const total = state.pixels.reduce((a, b) => a + b, 0);
    const most = Math.max(...state.pixels, 1);
    state.pixels.forEach((pixels, index) => {
      const { bar, share } = this.areas[index];
      bar.style.setProperty("--v", `${(100 * pixels) / most}%`);
      const percent = total ? (100 * pixels) / total : 0;
      share.textContent = pixels && percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
    });
    drawChart(byId("chart"), scores, { label: "mIoU in percent against minutes of painting", unit: "min" });
    byId("chart-caption").textContent = scores.length
      ? `mIoU of the quick head on ${heldBack} held-back image${heldBack === 1 ? "" : "s"}, against minutes`
      : heldBack
        ? "The score appears after the next stroke."
        : "Every tenth painted image is held back to measure a score.";
  }

  training(training, maps) {
    const { running, run, step, steps, scores, failed, finished, obstacle } = training;
    byId("start").hidden = running;
    byId("stop").hidden = !running;
    byId("start").disabled = Boolean(obstacle);
    const bar = byId("training-progress");
    bar.hidden = !running;
    if (steps) bar.value = step / steps;
    else bar.removeAttribute("value");
    let text = obstacle ?? "Trains on your paint; all else is the pool.";
    if (!obstacle && this.setup.start_from) text += ` Starts from ${this.setup.start_from}.`;
    if (running) text = steps ? `Run ${run}: step ${step} of ${steps}` : `Run ${run} starts …`;
    else if (failed) text = `Run ${run} failed: ${failed}`;
    else if (finished.length && scores?.length) {
      const best = Math.max(...scores.map((s) => s[1] ?? 0));
      text = `Run ${finished[finished.length - 1]}: mIoU ${best.toFixed(1)} % on the held-back images.`;
      const quick = this.state.scores.at(-1)?.[1];
      if (quick > best) text += ` The quick head has ${quick.toFixed(1)} %; choose it under Source if its map is better.`;
    }
    byId("training-state").textContent = text;
    const points = (scores ?? []).filter((s) => s[1] !== null);
    drawChart(byId("training-chart"), points.length > 1 ? points : [], {
      label: "mIoU in percent against training steps",
      unit: "steps",
    });
    byId("log-box").hidden = !run;
    if (running && byId("log-box").open) this.readLog();
    this.maps(maps, finished[finished.length - 1]);
  }

  maps(names, run) {
    const holder = byId("maps");
    while (holder.children.length > names.length) holder.lastChild.remove();
    names.forEach((name, index) => {
      let button = holder.children[index];
      if (!button) {
        button = make("button", { type: "button" }, make("img"));
        button.addEventListener("click", () => this.open(button.dataset.name));
        holder.append(button);
      }
      button.dataset.name = name;
      button.title = name;
      thumbnail(button.firstChild, { image: name, run }, `Map of ${name}`);
    });
  }

  readLog() {
    const run = this.state?.training.run;
    if (!run || !byId("log-box").open) return;
    api.get("log", { run }).then(({ text }) => {
      const log = byId("log");
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.textContent = text;
      if (atEnd) log.scrollTop = log.scrollHeight;
    });
  }
}

// The dialog with all images.
export class ImageList {
  constructor(open) {
    this.dialog = byId("list-dialog");
    byId("all-images").addEventListener("click", () => this.show());
    byId("list-search").addEventListener("input", () => this.fill());
    byId("list").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      this.dialog.close();
      open(button.dataset.name);
    });
  }

  async show() {
    this.images = (await api.get("images")).images;
    this.fill();
    this.dialog.showModal();
  }

  fill() {
    const wanted = byId("list-search").value.toLowerCase();
    const rows = this.images.filter((image) => image.name.toLowerCase().includes(wanted)).slice(0, 300);
    byId("list").replaceChildren(
      ...rows.map((image) => {
        const button = make("button", { type: "button", className: "link", textContent: image.name });
        button.dataset.name = image.name;
        const held = image.split === "val" ? "held back" : image.split && image.split !== "train" ? image.split : "";
        const state = image.failed ? "cannot be read" : image.status === "open" ? held : [image.status, held].filter(Boolean).join(", ");
        return make(
          "tr",
          {},
          make("td", {}, button),
          make("td", { textContent: image.sol ?? "" }),
          make("td", { textContent: image.painted ? `${(image.painted / 1000).toFixed(1)} kpx` : "" }),
          make("td", { textContent: state, title: image.failed ?? "" }),
        );
      }),
    );
  }
}

// A line chart as SVG, in the colours of the report.

const NS = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// points: [x, y] with y in percent.
export function drawChart(holder, points, { label, unit }) {
  holder.replaceChildren();
  if (!points.length) return;
  const [width, height, left, bottom] = [240, 104, 24, 16];
  const most = Math.max(...points.map((p) => p[0]), 1e-9);
  const place = ([x, y]) => [
    left + (x / most) * (width - left - 6),
    6 + (1 - y / 100) * (height - bottom - 6),
  ];
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of [0, 50, 100]) {
    const y = place([0, tick])[1];
    svg.append(element("line", { x1: left, x2: width - 6, y1: y, y2: y, class: "grid" }));
    svg.append(element("text", { x: left - 5, y: y + 3.5, "text-anchor": "end" }, tick));
  }
  svg.append(element("text", { x: left, y: height - 3 }, "0"));
  const end = most >= 10 ? Math.round(most) : most.toFixed(1);
  svg.append(element("text", { x: width - 6, y: height - 3, "text-anchor": "end" }, `${end} ${unit}`));
  const path = points.map((p) => place(p).map((v) => v.toFixed(1)).join(",")).join(" ");
  svg.append(element("polyline", { points: path, class: "line" }));
  const [x, y] = place(points[points.length - 1]);
  svg.append(element("circle", { cx: x, cy: y, r: 3, class: "dot" }));
  holder.append(svg);
}

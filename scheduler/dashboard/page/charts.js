"use strict";
// The charts: the last 15 minutes, or as long as there is something to show. Latencies are on a logarithmic scale.

const SPANS = [1, 2, 5, 10, 15], NS = "http://www.w3.org/2000/svg", LOW = 0.001;
const CHARTS = { wait: [0, 1], first: [2, 3], turn: [4, 5] };
let hovered = null, chartsAt = 0;

function svg(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text != null) element.textContent = text;
  return element;
}

function path(points) { // a gap where there is nothing
  let text = "", down = false;
  for (const point of points) {
    if (!point) { down = false; continue; }
    text += `${down ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    down = true;
  }
  return text;
}

function charts(always = false) {
  const keys = Object.keys(frame.rows), last = keys[keys.length - 1] || "";
  if (!always && charts.last === last && frame.now - chartsAt < 5 && frame.now >= chartsAt) return;
  charts.last = last;
  chartsAt = frame.now;
  const steps = keys.map((key) => [Number(key), ...frame.rows[key]]).sort((a, b) => a[0] - b[0]);
  const old = (frame.now - (steps[0]?.[0] ?? frame.now)) / 60, minutes = SPANS.find((one) => one >= old) || 15;
  say($("time-title"), minutes === 1 ? "The last minute" : `The last ${minutes} minutes`);
  for (const box of document.querySelectorAll("[data-chart]")) chart(box, steps, minutes);
}

function chart(box, steps, minutes) {
  const name = box.dataset.chart, area = box.querySelector("svg"), width = area.clientWidth, height = area.clientHeight;
  if (!width) return;
  const left = 44, right = width - 4, top = 6, bottom = height - 18, end = frame.now;
  const x = (at) => right - ((end - at) / (60 * minutes)) * (right - left);
  const pair = CHARTS[name], parts = [];
  let y, marks;
  if (pair) {
    const values = steps.flatMap((step) => [step[1 + pair[0]], step[1 + pair[1]]]).filter((value) => value != null);
    const high = 10 ** Math.ceil(Math.log10(Math.max(0.01, ...values)) - 1e-9);
    const least = values.length ? Math.min(...values) : LOW, low = Math.max(LOW, 10 ** Math.floor(Math.log10(Math.max(LOW, least)) + 1e-9));
    const floor = Math.min(low, high / 10), range = Math.log10(high / floor);
    y = (value) => bottom - (Math.log10(Math.max(value, floor) / floor) / range) * (bottom - top);
    marks = [];
    for (let mark = floor; mark <= high * 1.01; mark *= 10) marks.push([mark, mark < 1 ? `${Math.round(mark * 1000)} ms` : `${Math.round(mark)} s`]);
  } else {
    const high = Math.max(4, ...steps.map((step) => Math.max(step[7], step[8], step[9]))), unit = 10 ** Math.floor(Math.log10(high)), nice = [1, 2, 4, 5, 10].find((k) => k * unit >= high) * unit;
    y = (value) => bottom - (value / nice) * (bottom - top);
    marks = [0, nice / 2, nice].map((mark) => [mark, n(mark)]);
  }
  for (const [mark, text] of marks) {
    const level = y(mark);
    parts.push(svg("line", { class: "axis", x1: left, x2: right, y1: level, y2: level }), svg("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, text));
  }
  for (const part of [0, 1, 2]) {
    const back = (30 * minutes * (2 - part)), text = back >= 60 ? `−${+(back / 60).toFixed(1)} min` : `−${back} s`;
    parts.push(svg("text", { x: x(end - back), y: height - 3, "text-anchor": ["start", "middle", "end"][part] }, back ? text : "now"));
  }
  const gap = 2.5 * frame.step, line = (column) => {
    const points = [];
    steps.forEach((step, index) => {
      if (index && step[0] - steps[index - 1][0] > gap) points.push(null);
      points.push(step[column] == null || x(step[0]) < left ? null : [x(step[0]), y(step[column])]);
    });
    return points;
  };
  const drawLine = (column, kind) => {
    const points = line(column);
    parts.push(svg("path", { class: kind, d: path(points) }));
    points.forEach((point, index) => { // one alone would not be seen as a line
      if (point && !points[index - 1] && !points[index + 1]) parts.push(svg("circle", { class: kind === "p99" ? "dot99" : "dot50", cx: point[0], cy: point[1], r: 1.75 }));
    });
    return points;
  };
  let said, spoken;
  const at = hovered ? steps.reduce((best, step) => (Math.abs(x(step[0]) - hovered) < Math.abs(x(best[0]) - hovered) ? step : best), steps[0]) : steps[steps.length - 1];
  const when = at && hovered ? `${span(end - at[0])} ago` : "";
  if (pair) {
    drawLine(1 + pair[1], "p99");
    drawLine(1 + pair[0], "p50");
    const [p50, p99] = at ? [at[1 + pair[0]], at[1 + pair[1]]] : [null, null];
    said = [["s50", "p50", seconds(p50)], ["s99", "p99", seconds(p99)]];
    const worst = Math.max(0, ...steps.map((step) => step[1 + pair[1]] || 0));
    spoken = steps.length ? `Of late p50 ${seconds(p50)}, p99 ${seconds(p99)}. The highest p99 was ${seconds(worst)}.` : "Nothing yet.";
  } else {
    drawLine(8, "usable"); drawLine(9, "p99"); drawLine(7, "p50");
    for (const step of steps) if (step[12] && x(step[0]) >= left) parts.push(svg("line", { class: "loss", x1: x(step[0]), x2: x(step[0]), y1: bottom - 7, y2: bottom }));
    said = [["s50", "busy", at ? n(at[7]) : "–"], ["sfree", "of", at ? n(at[8]) : "–"], ["s99", "waiting", at ? n(at[9]) : "–"]];
    spoken = steps.length ? `${n(at[7])} of ${n(at[8])} lanes busy, ${n(at[9])} waiting. At most ${n(Math.max(...steps.map((step) => step[9])))} waited.` : "Nothing yet.";
  }
  if (at && hovered) parts.push(svg("line", { class: "cursor", x1: x(at[0]), x2: x(at[0]), y1: top, y2: bottom }));
  area.setAttribute("aria-label", spoken);
  area.replaceChildren(...parts);
  const caption = box.querySelector("p");
  caption.replaceChildren(...said.flatMap(([kind, what, value]) => [make("span", { className: kind }), `${what} `, make("b", { textContent: value }), "\u2002"]), when);
}

document.querySelectorAll("[data-chart] svg").forEach((area) => {
  area.addEventListener("pointermove", (event) => { hovered = event.clientX - area.getBoundingClientRect().left; if (frame) charts(true); });
  area.addEventListener("pointerleave", () => { hovered = null; if (frame) charts(true); });
});
new ResizeObserver(() => { if (frame) charts(true); }).observe(document.querySelector(".charts"));

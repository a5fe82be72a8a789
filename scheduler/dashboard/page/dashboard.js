"use strict";
// The dashboard's page. Messages come as server-sent events: first a whole frame, then what has changed (see feed.py,
// whose `merge` is the one below). Drawing follows the latest frame, once for each animation frame, and not while hidden.

const $ = (id) => document.getElementById(id);
const STATES = {
  dialing: ["+", "being dialled"], open: ["", "open"], leaving: ["→", "moving out: its successor is open"],
  draining: ["↓", "draining: its last turns end"],
};
const LANE = { leased: "in flight", held: "idle, hot", fouled: "abandoned, still running", dead: "given up" };
const SILENCE = 5000; // ms without a message, after which the picture is said to be old

let frame = null, offset = 0, heardAt = 0, paused = false, pending = false, stream = null, retryIn = 1000, retryTimer = 0;
let source = new URLSearchParams(location.search).get("source") || "";

// Words and numbers.

const number = new Intl.NumberFormat("en");
const n = (value) => number.format(value);
const plural = (count, one, many) => `${n(count)} ${count === 1 ? one : many || one + "s"}`;
const percent = (part, whole) => (whole ? `${Math.floor((100 * part) / whole)} %` : "–");

function seconds(value) { // a latency
  if (value == null) return "–";
  if (value < 0.001) return value < 0.00001 ? "0 ms" : `${(value * 1000).toFixed(2)} ms`;
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 100 ? `${value.toFixed(value < 10 ? 2 : 1)} s` : `${Math.round(value / 60)} min`;
}

function span(value) { // a time that goes by
  value = Math.max(0, value);
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.floor(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

const now = () => (paused || stale() ? frame.now : performance.now() / 1000 + offset);
const stale = () => performance.now() - heardAt > SILENCE;

function say(element, text) { if (element.textContent !== text) element.textContent = text; }
function show(element, yes) { if (element.hidden === yes) element.hidden = !yes; }

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A table's rows: cells are texts, or [text, class]; rows are reused, so that a selection in them survives.
function rows(body, list) {
  while (body.rows.length > list.length) body.deleteRow(-1);
  list.forEach((cells, index) => {
    const row = body.rows[index] || body.insertRow();
    cells.forEach((cell, column) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      const at = row.cells[column] || row.insertCell();
      if (text === null) return; // the caller fills it
      if (at.className !== kind) at.className = kind;
      say(at, text);
    });
  });
}

// The stream.

function merge(message) {
  if (message.whole || !frame) { frame = message; return; }
  const { gone = {}, conns, rows: steps, ...rest } = message;
  Object.assign(frame, rest);
  for (const [part, changed] of [["conns", conns], ["rows", steps]]) {
    for (const key of gone[part] || []) delete frame[part][key];
    Object.assign(frame[part], changed);
  }
}

function connect() {
  clearTimeout(retryTimer);
  stream?.close();
  stream = new EventSource(source ? `events?source=${encodeURIComponent(source)}` : "events");
  stream.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.whole) retryIn = 1000;
    heardAt = performance.now();
    merge(message);
    offset = frame.now - heardAt / 1000;
    if (!paused) draw();
  };
  stream.onerror = () => { stream.close(); again(); };
}

function again() { // after a while, and longer each time
  link();
  retryTimer = setTimeout(connect, retryIn);
  retryIn = Math.min(retryIn * 2, 10000);
}

function link() {
  const alive = stream && stream.readyState === EventSource.OPEN && !stale();
  const state = alive ? "live" : frame ? "lost" : "wait";
  $("link").dataset.state = state;
  document.body.classList.toggle("stale", state === "lost");
  let text = "Connecting";
  if (paused) text = "Paused";
  else if (alive) text = "Live";
  else if (frame) text = `No answer; this is ${span((performance.now() - heardAt) / 1000)} old. Trying again`;
  say($("link-text"), text);
}

// Drawing.

function draw() {
  if (pending || document.hidden || !frame) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    const count = frame.figures.waiting + frame.figures.held_back;
    document.title = (count ? `(${n(count)} waiting) ` : "") + `${frame.pool.endpoint} – warmline`;
    say($("endpoint"), frame.pool.endpoint);
    sources(); verdict(); figures(); cells(); tables(); charts(); detail(); link();
  });
}

function sources() {
  const box = $("source"), names = frame.sources;
  show($("source-box"), names.length > 1);
  if (box.dataset.names !== names.join("\n")) {
    box.dataset.names = names.join("\n");
    box.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  }
  box.value = frame.source;
}

let announced = "", announcedAt = -1e9;

function verdict() {
  const [first, ...rest] = frame.verdict;
  $("headline").dataset.level = first[0];
  say($("headline-text"), first[2]);
  const list = $("notices");
  while (list.children.length > rest.length) list.lastChild.remove();
  rest.forEach(([level, , text], index) => {
    const item = list.children[index] || list.appendChild(make("li", {}, make("span", { className: "sign" }), make("span")));
    item.firstChild.setAttribute("aria-hidden", "true");
    item.dataset.level = level;
    say(item.lastChild, text);
  });
  // Told when something begins or ends, not when a number changes, and not more often than every ten seconds.
  const kinds = frame.verdict.map(([, kind]) => kind).join();
  if (kinds !== announced && performance.now() - announcedAt > 10000) {
    announced = kinds;
    announcedAt = performance.now();
    say($("announce"), frame.verdict.map(([, , text]) => text).join(" "));
  }
}

function figure(name, big, unit, small, { share, alarm } = {}) {
  const box = document.querySelector(`[data-figure=${name}]`), b = box.querySelector("b");
  const text = unit ? `${big} ${unit}` : big;
  if (b.dataset.text !== text) {
    b.dataset.text = text;
    b.replaceChildren(big, ...(unit ? [make("i", { textContent: ` ${unit}` })] : []));
  }
  say(box.querySelector("small"), small);
  box.dataset.alarm = alarm || "";
  if (share != null) box.querySelector(".meter").style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
}

function figures() {
  const f = frame.figures, waiting = f.waiting + f.held_back;
  figure("lanes", n(f.busy), `of ${n(f.usable)}`, f.most > f.usable ? `at most ${n(f.most)} when grown` : "grown to its maximum",
    { share: f.usable ? Math.min(1, f.busy / f.usable) : 0 });
  const longest = f.waiting_since == null ? "" : `, the first for ${span(now() - f.waiting_since)}`;
  figure("waiting", n(waiting), "", waiting ? [f.waiting && `${n(f.waiting)} for lanes`, f.held_back && `${n(f.held_back)} for admission`].filter(Boolean).join(", ") + longest : "nobody",
    { alarm: waiting ? "warn" : "" });
  figure("hot", f.returning_recent ? percent(f.hot_recent, f.returning_recent) : "–", "",
    f.returning_recent ? `of ${plural(f.returning_recent, "returning turn")}` : "no returning turn of late",
    { share: f.returning_recent ? f.hot_recent / f.returning_recent : 0 });
  const rate = f.recent_seconds ? (f.turns_recent * 60) / f.recent_seconds : 0;
  figure("rate", n(Math.round(rate)), "", `${n(f.turns)} so far`);
  figure("turn", f.turns ? seconds(f.p50[2]) : "–", "", f.turns ? `p99 ${seconds(f.p99[2])}, so far` : "none has ended yet");
  const other = [[f.dialing, "dialling"], [f.leaving, "moving out"], [f.draining, "draining"]].filter(([count]) => count);
  const lost = f.lost ? [`${n(f.lost)} lost so far`] : [];
  figure("open", n(f.open), `of ${n(frame.pool.max)}`, [...other.map(([count, what]) => `${n(count)} ${what}`), ...lost].join(", ") || "none lost",
    { alarm: f.lost_recent ? "warn" : "" });
}

// The connections.

const grid = $("grid"), shown = new Map();
let picked = null, pinned = null, tabbable = null, details = null, agesAt = 0;

function facts(key) {
  const [state, started, retire, limit, lanes] = frame.conns[key];
  let busy = 0, hot = 0, trouble = false;
  for (const lane of lanes) {
    if (lane === "b") busy++; else if (lane === "h") hot++; else if (lane === "f" || lane === "x") { busy += lane === "f"; trouble = true; }
  }
  return { state, started, retire, limit, lanes, busy, hot, trouble };
}

function label(key, fact) {
  const words = [`c${key}`, STATES[fact.state][1]];
  if (fact.lanes) words.push(`${fact.busy} of ${fact.limit} in flight`, `${fact.hot} hot`);
  if (fact.trouble) words.push("a lane was abandoned");
  return words.join(", ");
}

function cells() {
  const keys = Object.keys(frame.conns), large = keys.length <= 60, size = large ? "large" : keys.length <= 300 ? "medium" : "small";
  show($("none"), keys.length === 0);
  if (grid.dataset.size !== size) { grid.dataset.size = size; grid.replaceChildren(); shown.clear(); }
  for (const [key, cell] of shown) if (!(key in frame.conns)) {
    if (cell.element === document.activeElement) (cell.element.nextSibling || cell.element.previousSibling)?.focus();
    cell.element.remove();
    shown.delete(key);
  }
  const clock = now(), ages = clock - agesAt > 5 || clock < agesAt;
  if (ages) agesAt = clock;
  let added = null;
  for (const key of keys) {
    const data = frame.conns[key];
    let cell = shown.get(key);
    if (!cell) {
      const element = make("div", { className: "cell" }, make("span", { className: "id", textContent: `c${key}` }), make("span", { className: "mark" }),
        make("span", { className: large ? "lanes" : "bar" }));
      element.setAttribute("role", "option");
      element.tabIndex = -1;
      element.dataset.key = key;
      cell = { element, data: null };
      shown.set(key, cell);
      (added ||= document.createDocumentFragment()).append(element);
    }
    if (cell.data !== data) { cell.data = data; cell.fact = facts(key); paint(key, cell, large); age(cell, clock); }
    else if (ages) age(cell, clock);
  }
  if (added) grid.append(added); // ids only grow, so the new ones belong to the end
  if (!shown.has(tabbable)) tab(keys[0]);
  if ($("as-table").ariaPressed === "true") table(clock);
}

function paint(key, { element, fact }, large) {
  element.dataset.state = fact.state;
  element.dataset.load = fact.busy ? "busy" : fact.hot ? "hot" : "free";
  element.classList.toggle("trouble", fact.trouble);
  element.setAttribute("aria-label", label(key, fact));
  element.setAttribute("aria-selected", String(key === pinned));
  const [, mark, lanes] = element.children;
  say(mark, (fact.trouble ? "!" : STATES[fact.state][0]) + (fact.busy ? n(fact.busy) : ""));
  if (!large) {
    lanes.style.setProperty("--b", `${Math.min(100, (100 * fact.busy) / fact.limit)}%`);
    lanes.style.setProperty("--h", `${Math.min(100, (100 * fact.hot) / fact.lanes.length || 0)}%`);
    return;
  }
  while (lanes.children.length > fact.lanes.length) lanes.lastChild.remove();
  for (let i = 0; i < fact.lanes.length; i++) {
    const dot = lanes.children[i] || lanes.appendChild(document.createElement("i"));
    if (dot.className !== fact.lanes[i]) dot.className = fact.lanes[i] === "." ? "" : fact.lanes[i];
  }
}

function age({ element, fact }, clock) {
  if (fact.state === "dialing" || !frame.pool.cap) return;
  element.style.setProperty("--age", `${Math.min(100, (100 * (clock - fact.started)) / frame.pool.cap).toFixed(1)}%`);
  element.classList.toggle("old", fact.retire != null && clock >= fact.retire);
}

function table(clock) {
  rows($("table").tBodies[0], Object.keys(frame.conns).map((key) => {
    const fact = facts(key), until = fact.retire == null ? "" : fact.retire - clock;
    return [`c${key}`, STATES[fact.state][1], [span(clock - fact.started), "n"],
      [until === "" ? "–" : until > 0 ? span(until) : "now", "n"], [`${fact.busy} of ${fact.limit}`, "n"], [n(fact.hot), "n"], [n(fact.lanes.length), "n"]];
  }));
}

function tab(key) { // the one cell that Tab reaches
  shown.get(tabbable)?.element.setAttribute("tabindex", "-1");
  tabbable = key;
  shown.get(key)?.element.setAttribute("tabindex", "0");
}

function pick(key) {
  if (picked === key) return;
  picked = key;
  details = null;
  detail();
  fetchDetail();
}

function pin(key) {
  for (const one of [pinned, key]) shown.get(one)?.element.setAttribute("aria-selected", String(one === key && key !== null));
  pinned = key;
  pick(key);
}

let fetching = false;

async function fetchDetail() { // one at a time; asked again with every frame while something is picked
  if (fetching || picked === null || !frame) return;
  fetching = true;
  const key = picked;
  try {
    const answer = await fetch(`connection.json?source=${encodeURIComponent(frame.source)}&id=${key}`);
    if (key === picked) details = answer.ok ? await answer.json() : { gone: true };
  } catch { /* the stream says when nobody answers */ } finally { fetching = false; }
  if (key === picked) paintDetail(); else fetchDetail();
}

function detail() { paintDetail(); if (!paused) fetchDetail(); }

function paintDetail() {
  const open = picked !== null;
  show($("detail-none"), !open);
  show($("detail-body"), open);
  $("detail").classList.toggle("open", open);
  say($("detail-title"), open ? `Connection c${picked}` : "One connection");
  if (!open) return;
  show($("detail-close"), pinned !== null);
  if (!(picked in frame.conns)) { say($("detail-text"), "It is closed."); rows($("detail-lanes"), []); show($("detail-more"), false); return; }
  const fact = facts(picked), clock = now(), words = [STATES[fact.state][1]];
  if (fact.state === "dialing") words.push(`for ${span(clock - fact.started)}`);
  else {
    words.push(`${span(clock - fact.started)} old` + (frame.pool.cap ? ` of ${span(frame.pool.cap)}` : ""));
    if (fact.retire != null && fact.state === "open") words.push(clock < fact.retire ? `replaced in ${span(fact.retire - clock)}` : "to be replaced now");
    words.push(`${fact.busy} of ${fact.limit} in flight`, `${fact.hot} hot`);
  }
  if (details?.successor) words.push(`its successor is ${details.successor}`);
  say($("detail-text"), words.join(" · "));
  const lanes = details && !details.gone && details.id === Number(picked) ? details.lanes : [];
  rows($("detail-lanes"), lanes.map(([name, state, conversation, holder, since]) => [name, conversation || holder || "(unnamed)", [span(clock - since), "n"]]));
  lanes.forEach(([name, state], index) => {
    const cell = $("detail-lanes").rows[index].cells[0];
    cell.replaceChildren(make("i", { className: `dot ${state}`, title: LANE[state] }), name, make("span", { className: "unseen", textContent: `, ${LANE[state]}` }));
  });
  const free = fact.lanes.length - lanes.length;
  show($("detail-more"), fact.lanes.length > 0 && free > 0);
  say($("detail-more"), lanes.length ? `${plural(free, "other lane")} free.` : "Every lane is free, and nobody is remembered.");
}

// The tables and lists.

function listed(name, list) {
  show($(name), list.length > 0);
  show($(`${name}-none`), list.length === 0);
  return $(name).tBodies[0];
}

function tables() {
  const clock = now(), f = frame.figures;
  const waiters = frame.waiters.map(([who, since, wants, lane, behind]) =>
    [who, behind ? `${lane}, in use by ${behind}` : lane ? `${wants}; its own: ${lane}` : wants, [span(clock - since), "n"]]);
  const body = listed("waiters", waiters);
  say($("waiters-none"), "Nobody waits for a lane." + (f.held_back ? ` ${plural(f.held_back, "turn waits", "turns wait")} for admission: see the tenants.` : ""));
  if (f.waiting > waiters.length) waiters.push([[`and ${n(f.waiting - waiters.length)} more`, "sub"], "", ["", "n"]]);
  rows(body, waiters);
  rows(listed("longest", frame.longest), frame.longest.map(([who, lane, state, since]) =>
    [who || "(unnamed)", lane, [span(clock - since), state === "fouled" ? "n limit" : "n"]]));

  const most = Math.max(1, ...frame.reasons.map(([, , recent, total]) => total));
  const reasons = listed("reasons", frame.reasons);
  rows(reasons, frame.reasons.map(([, , recent, total]) => [null, [recent ? n(recent) : "", "n"], [n(total), "n"]]));
  frame.reasons.forEach(([name, why, , total], index) => {
    const row = reasons.rows[index], cell = row.cells[0];
    row.className = /^(hot|hydrated)$/.test(name) ? "warm" : "";
    if (cell.dataset.name !== name) {
      cell.dataset.name = name;
      cell.replaceChildren(name, make("span", { className: "sub", textContent: why && ` ${why.replace(/^\w+: /, "")}` }), make("span", { className: "track" }));
    }
    cell.lastElementChild?.style.setProperty("--share", `${((100 * total) / most).toFixed(1)}%`);
  });
  say($("saved"), f.tokens_saved ? `${n(f.tokens_saved)} input tokens did not have to be sent and read again.` : "");

  rows(listed("losses", frame.losses), frame.losses.map(([conn, at, kind, cause, old, turns]) =>
    [[`${conn} ${kind === "lost" ? "lost" : "not opened"}`, "k"], cause + (turns ? `; ${plural(turns, "turn")} in flight` : "") + (old ? `; ${span(old)} old` : ""), [span(clock - at), "n"]]));
  const retries = Object.entries(frame.retries).sort((a, b) => b[1] - a[1]).map(([why, count]) => `${why} ${n(count)}`);
  const moves = Object.entries(frame.moves).map(([how, count]) => `${how.replace("_", " ")} ${n(count)}`);
  say($("retries"), [retries.length ? `Tried again: ${retries.join(", ")}.` : "", moves.length ? `Moved between turns: ${moves.join(", ")}.` : ""].join(" ").trim());

  rows(listed("tenants", frame.tenants), frame.tenants.map(([name, weight, flying, cap, waiting, , p50, p99]) =>
    [[name + (weight === 1 ? "" : ` ×${weight}`), "k"], [cap == null ? n(flying) : `${n(flying)} of ${n(cap)}`, "n"], [waiting ? n(waiting) : "", waiting ? "n limit" : "n"], [seconds(p50), "n"], [seconds(p99), "n"]]));
  show($("models"), frame.models.length > 0);
  rows($("models").tBodies[0], frame.models.map(([name, flying, limit, held, requests, tokens]) => {
    const limits = [];
    if (held != null) limits.push(`the server asked for ${span(held - clock)}`);
    if (limit != null) limits.push(`${n(limit)} in flight after refusals`);
    if (requests) limits.push(`${percent(requests[0], requests[1])} of ${n(requests[1])} requests a minute`);
    if (tokens) limits.push(`${percent(tokens[0], tokens[1])} of ${n(tokens[1])} tokens a minute`);
    return [[name, "k"], [n(flying), "n"], [limits.join("; ") || "none", limit != null || held != null ? "limit" : ""]];
  }));
  const r = frame.replays;
  say($("replays"), r.spent || r.blocked ? `Recovery has sent ${n(r.spent)} tokens again` + (r.per_minute ? `; it may send ${n(r.per_minute)} a minute` : "") + (r.blocked ? ", which are spent: it waits." : ".") : "");
}

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

// What the user does.

grid.addEventListener("pointerover", (event) => { const cell = event.target.closest(".cell"); if (cell && event.pointerType === "mouse" && pinned === null) pick(cell.dataset.key); });
grid.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && pinned === null && !grid.contains(document.activeElement)) pick(null); });
grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  tab(cell.dataset.key);
  cell.focus({ preventScroll: true });
  pin(pinned === cell.dataset.key ? null : cell.dataset.key);
});
grid.addEventListener("focusin", (event) => { if (event.target.dataset.key) { tab(event.target.dataset.key); if (pinned === null) pick(event.target.dataset.key); } });
grid.addEventListener("focusout", (event) => { if (pinned === null && !grid.contains(event.relatedTarget)) pick(null); });
grid.addEventListener("keydown", (event) => {
  const all = [...grid.children], index = all.indexOf(document.activeElement);
  if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const to = { ArrowRight: index + 1, ArrowLeft: index - 1, ArrowDown: index + columns, ArrowUp: index - columns, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined) {
    const next = all[to];
    if (next) { next.focus(); if (pinned !== null) pin(next.dataset.key); }
  } else if (event.key === "Enter" || event.key === " ") pin(pinned === tabbable ? null : tabbable);
  else if (event.key === "Escape") { pinned === null ? document.activeElement.blur() : pin(null); }
  else return;
  event.preventDefault();
});
$("detail-close").addEventListener("click", () => { pin(null); shown.get(tabbable)?.element.focus(); pick(null); });

function toggleTable() {
  const on = $("as-table").ariaPressed !== "true";
  $("as-table").ariaPressed = String(on);
  show(grid, !on);
  show($("legend"), !on);
  show($("table-box"), on);
  if (on && frame) table(now());
}

function togglePause() {
  paused = !paused;
  $("pause").ariaPressed = String(paused);
  say($("pause"), paused ? "Go on" : "Pause");
  if (frame && !paused) draw();
  link();
}

function choose(name) {
  source = name;
  const url = new URL(location);
  url.searchParams.set("source", name);
  history.replaceState(null, "", url);
  frame = null; picked = pinned = details = null;
  grid.replaceChildren(); shown.clear(); charts.last = null;
  retryIn = 1000;
  connect();
}

function remembered(key, value) { // a browser may forbid it
  try { if (value === undefined) return localStorage.getItem(key); localStorage.setItem(key, value); } catch { /* then not */ }
  return null;
}

$("as-table").addEventListener("click", toggleTable);
$("pause").addEventListener("click", togglePause);
$("help").addEventListener("click", () => $("keys").showModal());
$("source").addEventListener("change", (event) => choose(event.target.value));
$("keys-on").checked = remembered("keys") !== "off";
$("keys-on").addEventListener("change", (event) => remembered("keys", event.target.checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  if (!$("keys-on").checked || event.ctrlKey || event.metaKey || event.altKey || $("keys").open || event.target.matches("select")) return;
  if (event.key === "?") $("keys").showModal();
  else if (event.key === "t") toggleTable();
  else if (event.key === "p") togglePause();
  else if (event.key === "g") { if ($("as-table").ariaPressed === "true") toggleTable(); shown.get(tabbable)?.element.focus(); }
  else if (event.key === "s" && frame?.sources.length > 1) choose(frame.sources[(frame.sources.indexOf(frame.source) + 1) % frame.sources.length]);
  else return;
  event.preventDefault();
});
document.querySelectorAll("[data-chart] svg").forEach((area) => {
  area.addEventListener("pointermove", (event) => { hovered = event.clientX - area.getBoundingClientRect().left; if (frame) charts(true); });
  area.addEventListener("pointerleave", () => { hovered = null; if (frame) charts(true); });
});
new ResizeObserver(() => { if (frame) charts(true); }).observe(document.querySelector(".charts"));
document.addEventListener("visibilitychange", draw);
setInterval(link, 1000);
connect();

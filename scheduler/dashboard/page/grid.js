"use strict";
// The connections: a cell each, a table of them, and the one that is looked at more closely.

const STATES = {
  dialing: ["+", "being dialled"], open: ["", "open"], leaving: ["→", "moving out: its successor is open"],
  draining: ["↓", "draining: its last turns end"],
};
const LANE = { leased: "in flight", held: "idle, hot", fouled: "abandoned, still running", dead: "given up" };

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

// Pointing at them, and moving among them.

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

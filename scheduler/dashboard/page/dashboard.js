"use strict";
// The dashboard's page. Messages come as server-sent events: first a whole frame, then what has changed (see feed.py,
// whose `merge` is the one below). Drawing follows the latest frame, once for each animation frame, and not while hidden.

const SILENCE = 5000; // ms without a message, after which the picture is said to be old

let offset = 0, heardAt = 0, paused = false, pending = false, stream = null, retryIn = 1000, retryTimer = 0;
let source = new URLSearchParams(location.search).get("source") || "";

const now = () => (paused || stale() ? frame.now : performance.now() / 1000 + offset);
const stale = () => performance.now() - heardAt > SILENCE;

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
  const longest = f.waiting_since == null ? "" : `, the first for ${span(now() - f.waiting_since).replace(" ", "\u00a0")}`;
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

// What the user does.

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
document.addEventListener("visibilitychange", draw);
setInterval(link, 1000);
connect();

"use strict";
// What the scripts of this page share: the frame, its elements, numbers and times in words. They share their names, too.

let frame = null; // the latest that has come: what is drawn

const $ = (id) => document.getElementById(id);

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

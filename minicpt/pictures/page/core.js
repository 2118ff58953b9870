/* What all sections share: elements, numbers, live text, controls, rows that arrow keys walk.

   Nothing here computes a loss. Python computed all numbers; the page shows and recombines them. */
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const sections = {}; // name -> (root, data) => void; each section's file adds itself
const MATH = "http://www.w3.org/1998/Math/MathML";
const SVG = "http://www.w3.org/2000/svg";

/* An element with attributes and children. A function is a listener, `class` a class name. */
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function makeIn(space) {
  return (tag, attributes, ...children) =>
    fill(document.createElementNS(space, tag), attributes, children);
}
const math = makeIn(MATH), svg = makeIn(SVG);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return element;
}

const word = (number) => page.words[number];
const fixed = (value, places = 3) => value === null ? "not a number" : value.toFixed(places);

/* A loss as tables show it; a probability; a whole number with thin groups. */
const loss = (value) => fixed(value, 3);
const share = (value) => value === null ? "?" : value >= 0.0995 ? value.toFixed(2) : value.toPrecision(2);
const whole = (value) => value.toLocaleString("en-US");
const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);

/* Says something to a screen reader. */
function say(text) {
  document.getElementById("said").textContent = text;
}

/* A slider with its label and its value in words. */
function slider(label, least, most, value, words, change) {
  const output = make("output", {}, words(value));
  const input = make("input", {
    type: "range", min: least, max: most, step: 1, value: value, "aria-valuetext": words(value),
    input: () => {
      const now = Number(input.value);
      output.textContent = words(now);
      input.setAttribute("aria-valuetext", words(now));
      change(now);
    },
  });
  return make("label", { class: "control" }, make("span", {}, label), input, output);
}

/* A list to choose from. */
function choice(label, options, chosen, change) {
  const select = make("select", { change: () => change(select.selectedIndex) },
    options.map((each, at) => make("option", { selected: at === chosen }, each)));
  return make("label", { class: "control" }, make("span", {}, label), select);
}

/* A switch that is on or off. */
function toggle(label, on, change) {
  const input = make("input", {
    type: "checkbox", role: "switch", checked: on, change: () => change(input.checked),
  });
  return make("label", { class: "control switch" }, input, make("span", {}, label));
}

/* One of several, as buttons that arrow keys walk. */
function radio(label, options, chosen, change) {
  const buttons = options.map((each, at) => make("button", {
    type: "button", role: "radio", "aria-checked": String(at === chosen), click: () => pick(at),
  }, each));
  function pick(at) {
    buttons.forEach((each, other) => each.setAttribute("aria-checked", String(other === at)));
    change(at);
  }
  const group = make("div", { class: "segments", role: "radiogroup", "aria-label": label }, buttons);
  roving(group, () => [buttons], pick, chosen);
  return make("div", { class: "control" }, make("span", { "aria-hidden": "true" }, label), group);
}

/* Makes rows of elements one stop of the Tab key; arrow keys, Home and End walk in them.

   rows    () => rows of elements, as they stand now
   arrive  called with (column, row) when an arrow key arrives at an element */
function roving(root, rows, arrive, first = 0) {
  const flat = () => rows().flat();
  const settle = (element) => flat().forEach((each) => { each.tabIndex = each === element ? 0 : -1; });
  const all = flat();
  settle(all[Math.min(first, all.length - 1)]);
  root.addEventListener("focusin", (event) => {
    if (flat().includes(event.target)) settle(event.target);
  });
  root.addEventListener("keydown", (event) => {
    const now = rows();
    const row = now.findIndex((each) => each.includes(event.target));
    if (row < 0) return;
    const next = neighbour(now, row, now[row].indexOf(event.target), event.key);
    if (!next) return;
    event.preventDefault();
    const element = now[next[1]][next[0]];
    settle(element);
    element.focus();
    if (arrive) arrive(next[0], next[1]);
  });
  return settle;
}

/* Where a key leads from (row, column): [column, row], or null for another key. */
function neighbour(rows, row, column, key) {
  const single = rows.length === 1, narrow = rows.every((each) => each.length === 1);
  const steps = {
    ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1],
  };
  let [right, down] = steps[key] || [0, 0];
  if (single && down) [right, down] = [down, 0]; // in a line, both pairs of arrows walk along it
  if (narrow && !single && right) [right, down] = [0, right];
  if (narrow && key === "Home") return [0, 0];
  if (narrow && key === "End") return [0, rows.length - 1];
  if (key === "Home") return [0, row];
  if (key === "End") return [rows[row].length - 1, row];
  if (!steps[key]) return null;
  const to = Math.max(0, Math.min(rows.length - 1, row + down));
  return [Math.max(0, Math.min(rows[to].length - 1, column + right)), to];
}

/* A table with a caption; `head` and each row are lists of cells, the first of a row its heading. */
function table(caption, head, rows, attributes) {
  const body = rows.map((row) => make("tr", {},
    make("th", { scope: "row" }, row[0]), row.slice(1).map((each) => make("td", {}, each))));
  return make("table", attributes, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head.map((each) => make("th", { scope: "col" }, each)))),
    make("tbody", {}, body));
}

/* A wide element that scrolls in its own frame, also by keys. */
function frame(label, ...children) {
  return make("div", { class: "frame", role: "region", "aria-label": label, tabindex: 0 }, children);
}

/* --- formulas --- */

const mi = (text) => math("mi", {}, text);
const mn = (text) => math("mn", {}, text);
const mo = (text) => math("mo", {}, text);
const thin = () => math("mspace", { width: "0.17em" });
const mtext = (text) => math("mtext", {}, text);
const fraction = (above, below) => math("mfrac", {}, math("mrow", {}, above), math("mrow", {}, below));
const formula = (...parts) => make("div", { class: "formula" },
  math("math", { displaystyle: "true" }, math("mrow", {}, parts.flat())));

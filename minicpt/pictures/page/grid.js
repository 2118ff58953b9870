/* A grid: for each position what is read, seen and predicted, what it weighs, and what it costs.

   The packed form is described in `pictures/lesson/grid.py`. */
"use strict";

/* The packed grid with names in place of numbers. */
function unpack(packed) {
  return {
    ahead: packed.ahead,
    streams: packed.streams.map(([reader, words]) => ({ reader, words: words.map(word) })),
    sees: packed.sees,
    heads: packed.heads.map(([name, weight, classes, uniform, sum, count, mean, targets]) => ({
      name, weight, classes, uniform, sum, count, mean,
      targets: targets.map(([position, text, p, cost, factor, fate, reads, likeliest]) => ({
        position, text: word(text), p, loss: cost, weight: factor, fate,
        reads: reads < 0 ? "" : word(reads),
        likeliest: pairs(likeliest).map(([each, likely]) => ({ text: word(each), p: likely })),
      })),
    })),
  };
}

function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at], flat[2 * at + 1]]);
}

const own = (grid) => grid.streams[grid.streams.length - 1];

/* Which positions of a stream the target at `position` of a head sees: a list of booleans. */
function seen(grid, head, stream, position) {
  const pattern = grid.sees[head][stream], size = grid.streams[stream].words.length;
  return Array.from({ length: size }, (_, at) =>
    pattern === "all" || (pattern === "past" ? at <= position : pattern[position][at] === "1"));
}

/* Some positions in words: "0 to 4, 7". */
function ranges(flags) {
  const found = [];
  flags.forEach((flag, at) => {
    if (!flag) return;
    const last = found[found.length - 1];
    if (last && last[1] === at - 1) last[1] = at;
    else found.push([at, at]);
  });
  return found.map(([from, to]) => from === to ? `${from}` : `${from} to ${to}`).join(", ") || "nothing";
}

/* A strip with a field for each position: filled where it is seen, marked where it must not be. */
function strip(flags, position, leaks = [], lost = []) {
  const fields = flags.map((flag, at) => {
    const kind = leaks.includes(at) ? "leak" : lost.includes(at) ? "lost" : flag ? "on" : "off";
    return svg("rect", { class: kind, x: at + 0.08, y: 0.08, width: 0.84, height: 0.84, rx: 0.15 });
  });
  const marks = [...leaks, ...lost].map((at) =>
    svg("path", { class: "cross", d: `M${at + 0.3} .3L${at + 0.7} .7M${at + 0.7} .3L${at + 0.3} .7` }));
  const box = svg("svg", {
    class: "strip", viewBox: `0 0 ${flags.length} 1`, "aria-hidden": "true",
    preserveAspectRatio: "none",
  }, fields, position >= 0 && position < flags.length
    ? svg("circle", { class: "here", cx: position + 0.5, cy: 0.5, r: 0.16 }) : null, marks);
  box.style.width = `calc(${flags.length} * var(--field))`;
  return [box, make("span", { class: "unseen" }, ranges(flags))];
}

/* A bar as long as its share of the largest. */
function bar(value, largest, kind = "") {
  const box = make("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  box.style.width = `${Math.max(0, Math.min(1, largest ? value / largest : 0)) * 100}%`;
  return make("span", { class: "track", "aria-hidden": "true" }, box);
}

/* What a position reads, beside the same in a second pass where that is something else. */
function reading(text, target) {
  return target && target.reads && target.reads !== text ? `${text} \u2192 ${target.reads}` : text;
}

/* What the other streams read, as rows of tokens that can be lit. */
function beside(grid) {
  return grid.streams.slice(0, -1).map((stream) => make("div", { class: "beside" },
    make("p", { class: "label" }, `The ${stream.reader} reads`),
    make("ol", { class: "tokens", start: 0 }, stream.words.map((each) => make("li", {}, each)))));
}

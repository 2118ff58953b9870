/* Gained and forgotten: a plane of points with their intervals, and sliders for strengths. */
"use strict";

sections.plane = function (root, data) {
  const WIDTH = 720, HEIGHT = 440, EDGE = { left: 64, right: 24, top: 20, bottom: 52 };
  const objectives = [...new Set(data.points.map((each) => each.objective))];
  const state = { objective: 0, strengths: {} };
  const controls = make("div", { class: "controls" }), picture = make("div"), told = make("p", { class: "told", "aria-live": "polite" });
  const settings = Object.entries(data.settings).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  root.append(
    choice("Objective", objectives, 0, (at) => { state.objective = at; build(); }),
    controls, picture, told,
    make("p", { class: "small" }, settings.length ? `The comparison: ${settings.join(", ")}. ` : "",
      "A point is a mean over seeds, its lines are 95 % intervals. Right is more gained, down is less forgotten."));

  const mine = () => data.points.filter((each) => each.objective === objectives[state.objective]);
  const arms = () => [...new Set(mine().map((each) => each.arm))].sort((one, other) =>
    Number(other === "nothing") - Number(one === "nothing"));
  const of = (arm) => mine().filter((each) => each.arm === arm);

  function build() {
    state.strengths = {};
    controls.replaceChildren(...arms().filter((arm) => of(arm).length > 1).map((arm) => {
      const points = of(arm), middle = Math.floor((points.length - 1) / 2);
      state.strengths[arm] = middle;
      return slider(arm, 1, points.length, middle + 1, (at) => points[at - 1].label,
        (at) => { state.strengths[arm] = at - 1; draw(); tell(points[at - 1]); });
    }));
    draw();
    told.textContent = "Arrow keys walk from point to point.";
  }

  function draw() {
    const points = mine(), spans = {
      x: range(points.flatMap((each) => each.gained)), y: range(points.flatMap((each) => each.forgotten)),
    };
    const x = (value) => EDGE.left + (value - spans.x[0]) / (spans.x[1] - spans.x[0]) * (WIDTH - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (value - spans.y[0]) / (spans.y[1] - spans.y[0]) * (HEIGHT - EDGE.top - EDGE.bottom);
    const unit = points[0].unit;
    const shown = arms().map((arm) => of(arm)[state.strengths[arm] || 0]);
    const heights = apart(shown.map((each) => [x(each.gained[0]), y(each.forgotten[0]) - 8]));
    const marks = shown.map((each, at) => mark(each, at, x, y, heights[at]));
    picture.className = "pair";
    picture.replaceChildren(
      make("div", { class: "plane" }, svg("svg", {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
        "aria-label": `Gained and forgotten with ${objectives[state.objective]}, in ${unit}`,
      }, axes(spans, x, y, unit),
        arms().filter((arm) => of(arm).length > 1).map((arm) => trail(of(arm), arms().indexOf(arm), x, y)), marks)),
      make("div", { class: "frame", tabindex: 0, role: "region", "aria-label": "The points as a table" },
        table(`The points that are shown, in ${unit}`, ["", "remedy", "gained", "forgotten"],
          shown.map((each, at) => [symbol(at), each.label, interval(each.gained), interval(each.forgotten)]))));
    roving(picture, () => [marks], (at) => tell(shown[at]));
    marks.forEach((each, at) => each.addEventListener("focus", () => tell(shown[at])));
  }

  const interval = ([value, low, high]) => `${signed(value)} (${signed(low)} to ${signed(high)})`;

  function tell(point) {
    told.textContent = `${point.label}: gained ${interval(point.gained)}, forgotten ${interval(point.forgotten)} ${point.unit}, ${point.seeds} seeds.`;
  }

  /* Heights of labels, moved apart where two would cover each other. */
  function apart(places) {
    const order = places.map((_, at) => at).sort((one, other) => places[one][1] - places[other][1]);
    const heights = [], done = [];
    for (const at of order) {
      let height = places[at][1];
      for (const other of done) {
        if (Math.abs(places[at][0] - places[other][0]) < 120) height = Math.max(height, heights[other] + 16);
      }
      heights[at] = height;
      done.push(at);
    }
    return heights;
  }

  function range(values) {
    const low = Math.min(0, ...values), high = Math.max(0, ...values), room = (high - low || 1) * 0.06;
    return [low < 0 ? low - room : low, high + room];
  }

  function axes(spans, x, y, unit) {
    const found = [];
    for (const value of ticks(spans.x)) {
      found.push(svg("line", { class: value === 0 ? "zero" : "rule", x1: x(value), x2: x(value), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
        svg("text", { class: "tick", x: x(value), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle" }, plain(value)));
    }
    for (const value of ticks(spans.y)) {
      found.push(svg("line", { class: value === 0 ? "zero" : "rule", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, plain(value)));
    }
    found.push(
      svg("text", { class: "axis", x: WIDTH - EDGE.right, y: HEIGHT - 8, "text-anchor": "end" }, `gained on the new text, ${unit} \u2192`),
      svg("text", { class: "axis", x: 0, y: 0, transform: `translate(14 ${EDGE.top}) rotate(-90)`, "text-anchor": "end" }, `forgotten, ${unit} \u2192`));
    return found;
  }

  const plain = (value) => String(Number(value.toFixed(6))).replace("-", "\u2212");

  function ticks([low, high]) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high; at += 1) found.push(at * step);
    return found;
  }

  const SHAPES = ["M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0", "M-5.5-5.5h11v11h-11z", "M0-7L7 5.5H-7z", "M0 7L7-5.5H-7z", "M0-7.5L7.5 0 0 7.5-7.5 0z", "M-6-2h4v-4h4v4h4v4h-4v4h-4v-4h-4z"];
  const symbol = (at) => svg("svg", { viewBox: "-10 -10 20 20", class: "symbol", "aria-hidden": "true" },
    svg("path", { class: `colour${at % 6}${at > 5 ? " hollow" : ""}`, d: SHAPES[at % 6] }));

  function mark(point, at, x, y, height) {
    const [gained, forgotten] = [point.gained, point.forgotten];
    return svg("g", { class: `point colour${at % 6}${at > 5 ? " hollow" : ""}`, role: "img", tabindex: -1, "aria-label": `${point.label}: gained ${interval(gained)}, forgotten ${interval(forgotten)}` },
      svg("line", { x1: x(gained[1]), x2: x(gained[2]), y1: y(forgotten[0]), y2: y(forgotten[0]) }),
      svg("line", { x1: x(gained[0]), x2: x(gained[0]), y1: y(forgotten[1]), y2: y(forgotten[2]) }),
      svg("path", { d: SHAPES[at % 6], transform: `translate(${x(gained[0])} ${y(forgotten[0])})` }),
      svg("text", { x: x(gained[0]) + 10, y: height }, point.label));
  }

  function trail(points, at, x, y) {
    const path = points.map((each, place) => `${place ? "L" : "M"}${x(each.gained[0]).toFixed(1)} ${y(each.forgotten[0]).toFixed(1)}`).join("");
    return svg("g", { class: `trail colour${at % 6}`, "aria-hidden": "true" }, svg("path", { d: path }),
      points.map((each) => svg("circle", { cx: x(each.gained[0]), cy: y(each.forgotten[0]), r: 2.5 })));
  }

  if (data.points.length) build();
};

/* One pass or many? Prefixes on the left, the one pass on the right. */
"use strict";

sections["one-pass"] = function (root, data) {
  const most = data.targets.length;
  const state = { size: Math.min(6, most), forced: true, cell: null };
  const left = make("div"), right = make("div"), count = make("div", { class: "counted" });
  const told = make("p", { class: "told", "aria-live": "polite" });
  let settleCells = null;

  root.append(
    make("div", { class: "controls" },
      slider("T, how many tokens", 1, most, state.size, (size) => `${size} token${size > 1 ? "s" : ""}`,
        (size) => { state.size = size; state.cell = null; draw(); }),
      toggle("Teacher forcing: each position reads the true text", true,
        (on) => { state.forced = on; draw(); })),
    told,
    make("div", { class: "pair even" },
      make("div", {}, make("h3", { id: "many" }, "A run for each prefix"), left),
      make("div", {}, make("h3", { id: "one" }, "One pass"), right)),
    count);

  const alone = (run, at) => state.forced ? data.alone[run][at] : data.free.losses[at];
  const reads = () => state.forced ? data.read : data.free.read;

  function draw() {
    const size = state.size;
    left.replaceChildren(frame("Losses of the runs over prefixes", runs(size)));
    right.replaceChildren(frame("Losses of the one pass", once(size)));
    counted(size);
    const rows = () => [...left.querySelectorAll("tbody tr")].map((row) =>
      [...row.querySelectorAll("button")]);
    roving(left, rows, null, 0);
    roving(right, () => [[...right.querySelectorAll("tbody button")]], null, 0);
    light();
  }

  const upright = (number) => make("span", { class: "upright" }, word(number));

  const heads = (words, size) => [
    make("tr", {}, make("th", { scope: "row" }, "reads"),
      words.slice(0, size).map((each, at) => make("th", { scope: "col", class: "reads", "data-at": at }, upright(each)))),
    make("tr", {}, make("th", { scope: "row" }, "predicts"),
      data.targets.slice(0, size).map((each, at) =>
        make("th", { scope: "col", class: "target", "data-at": at }, upright(each)))),
  ];

  function cell(run, at, value) {
    return make("td", {}, make("button", {
      type: "button", class: "number", "data-run": run, "data-at": at, "aria-pressed": "false",
      click: () => {
        const same = state.cell && state.cell[0] === run && state.cell[1] === at;
        state.cell = same ? null : [run, at];
        light();
      },
    }, loss(value)));
  }

  function runs(size) {
    const rows = Array.from({ length: size }, (_, run) => make("tr", {},
      make("th", { scope: "row" }, `run ${run + 1}`),
      Array.from({ length: size }, (_, at) => at <= run ? cell(run, at, alone(run, at)) : make("td"))));
    return make("table", { class: "triangle" },
      make("caption", {}, `${size} run${size > 1 ? "s" : ""}; each reads one token more`),
      make("thead", {}, heads(reads(), size)), make("tbody", {}, rows));
  }

  function once(size) {
    return make("table", { class: "triangle" },
      make("caption", {}, "1 run over the true text"),
      make("thead", {}, heads(data.read, size)),
      make("tbody", {}, make("tr", {}, make("th", { scope: "row" }, "loss"),
        Array.from({ length: size }, (_, at) => cell("one", at, data.together[at])))));
  }

  function counted(size) {
    const [one, many] = data.operations[size - 1];
    const positions = size * (size + 1) / 2;
    count.replaceChildren(
      make("h3", {}, "Multiplications and additions"),
      frame("Operations of both ways", table("What both ways take", ["way", "passes", "positions", "operations", ""], [
        ["a run for each prefix", whole(size), whole(positions), whole(many), bar(many, many, "wrong")],
        ["one pass", "1", whole(size), whole(one), bar(one, many)],
      ], { class: "bars" })),
      make("p", { class: "verdict" }, state.forced
        ? `The prefixes take ${(many / one).toFixed(1)} times as many, for the same numbers: they `
          + `differ by ${data.difference} nats at the most (rounding may make ${data.tolerance} of them).`
        : "With teacher forcing off, each run reads what the run before it found likeliest. Its input is "
          + "not known beforehand, so that no single pass can do the same; and the losses part."));
  }

  function light() {
    for (const each of root.querySelectorAll("button.number")) {
      const mine = state.cell && String(state.cell[0]) === each.dataset.run
        && String(state.cell[1]) === each.dataset.at;
      each.setAttribute("aria-pressed", String(Boolean(mine)));
      const parts = !state.forced && each.dataset.run !== "one"
        && Math.abs(data.together[each.dataset.at] - data.free.losses[each.dataset.at]) > 5e-4;
      each.classList.toggle("apart", parts);
    }
    const [run, at] = state.cell || [null, null];
    const tables = { many: left, one: right };
    for (const [name, box] of Object.entries(tables)) {
      const active = state.cell && (run === "one") === (name === "one");
      for (const each of box.querySelectorAll("th.reads")) {
        each.classList.toggle("seen", Boolean(active && Number(each.dataset.at) <= at));
      }
      for (const each of box.querySelectorAll("th.target")) {
        each.classList.toggle("chosen", Boolean(active && Number(each.dataset.at) === at));
      }
    }
    told.textContent = told_of(run, at);
  }

  function told_of(run, at) {
    if (state.cell === null) {
      return "Press a number: what it saw lights up. Arrow keys walk between the numbers.";
    }
    const words = (run === "one" ? data.read : reads()).slice(0, at + 1).map(word).join(" ");
    const value = run === "one" ? data.together[at] : alone(run, at);
    const other = run === "one" ? "" : ` The one pass says ${loss(data.together[at])}.`;
    const where = run === "one" ? "The one pass" : `Run ${run + 1}`;
    return `${where}, target \u201c${word(data.targets[at])}\u201d: it saw ${at + 1} token${at ? "s" : ""}, `
      + `\u201c${words}\u201d. Its loss is ${loss(value)} nats.${other}`;
  }

  draw();
};

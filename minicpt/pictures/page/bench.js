/* The bench: one objective's grid, and the term, the sum and the mean of what is chosen in it. */
"use strict";

sections.bench = function (root, data) {
  const state = { objective: 0, seed: 0, value: 0, head: 0, position: null, names: false };
  const controls = make("div", { class: "controls" });
  const about = make("p", { class: "about" });
  const picture = make("div"), panel = make("div", { class: "panel" });
  const names = make("div");
  const told = make("p", { class: "unseen", "aria-live": "polite" });
  root.append(
    choice("Objective", data.objectives.map((each) => each.name), 0, (at) => {
      Object.assign(state, { objective: at, value: 0, head: 0, position: null });
      state.value = middle();
      build();
    }), controls, about, make("div", { class: "pair" }, picture, panel), told, names);

  const objective = () => data.objectives[state.objective];
  const grid = () => unpack(objective().grids[objective().index[state.value][state.seed]]);
  const middle = () => objective().values.length ? Math.floor((objective().values.length - 1) / 2) : 0;

  function build() {
    const { knob, values } = objective();
    const heads = grid().heads.map((each) => each.name);
    controls.replaceChildren(...[
      slider("Seed", 1, objective().index[0].length, state.seed + 1, String,
        (seed) => { state.seed = seed - 1; draw(); }),
      knob && slider(knob, 1, values.length, state.value + 1, (at) => String(values[at - 1]),
        (at) => { state.value = at - 1; draw(); }),
      heads.length > 1 && radio("Head", heads, state.head,
        (at) => { state.head = at; state.position = null; draw(); }),
      toggle("the names of transformers", state.names, (on) => { state.names = on; draw(); }),
    ].filter(Boolean));
    draw();
  }

  function draw() {
    const now = grid();
    state.head = Math.min(state.head, now.heads.length - 1);
    const head = now.heads[state.head];
    if (!head.targets.some((each) => each.position === state.position)) {
      const costly = [...head.targets].sort((one, other) => other.loss - one.loss)[0];
      state.position = costly ? costly.position : null;
    }
    const same = new Set(objective().index.flat()).size === 1;
    about.textContent = `${objective().summary}${same ? " Nothing is drawn: every seed shows the same." : ""}`
      + objective().notes.map((each) => ` (${each})`).join("");
    picture.replaceChildren(...beside(now), frame(`The grid of ${objective().name}`, drawn(now, head)));
    roving(picture, () => [...picture.querySelectorAll("td.target button")].map((each) => [each]),
      (_, row) => choose(head.targets[row].position),
      head.targets.findIndex((each) => each.position === state.position));
    names.replaceChildren(...(state.names ? [named()] : []));
    choose(state.position, true);
  }

  function drawn(now, head) {
    const weighted = head.targets.some((each) => each.weight !== 1);
    const labels = state.names && head.name === "tokens";
    const terms = head.targets.map((each) => each.weight * each.loss);
    const largest = Math.max(head.uniform, ...terms);
    const rows = own(now).words.map((text, position) => {
      const target = head.targets.find((each) => each.position === position);
      const flags = seen(now, state.head, now.streams.length - 1, position);
      return make("tr", { "data-position": position, class: target ? "asked" : "" },
        make("th", { scope: "row" }, String(position)),
        make("td", { class: "reads" }, reading(text, target),
          target && target.fate ? make("span", { class: "fate" }, ` ${target.fate}`) : null),
        make("td", { class: "sees" }, strip(flags, position)),
        make("td", { class: "target" }, target
          ? make("button", { type: "button", "aria-pressed": "false", click: () => choose(position) }, target.text)
          : make("span", { class: "none" }, "no target")),
        labels ? make("td", { class: "label" }, label(now, head, position)) : null,
        weighted ? make("td", { class: "number" }, target ? fixed(target.weight, 2) : "") : null,
        make("td", { class: "number cost" }, target ? [loss(target.loss), bar(target.weight * target.loss, largest)] : ""));
    });
    const kinds = state.names
      ? { reads: own(now).reader === "decoder" && now.streams.length > 1 ? "reads: decoder_input_ids" : "reads: input_ids",
          sees: "sees: attention_mask" }
      : { reads: "reads", sees: "sees" };
    return make("table", { class: "grid" },
      make("caption", {}, `${objective().name}, head \u201c${head.name}\u201d: ${head.count} targets at ${own(now).words.length} positions`),
      make("thead", {}, make("tr", {}, ["", kinds.reads, kinds.sees, "target", ...(labels ? ["labels"] : []),
        ...(weighted ? ["weight"] : []), "loss"].map((each) => make("th", { scope: "col" }, each)))),
      make("tbody", {}, rows));
  }

  /* What stands in transformers' labels at a position: a decoder's are not shifted yet. */
  function label(now, head, position) {
    const late = now.streams.length === 1 ? now.ahead : 0;
    const target = head.targets.find((each) => each.position === position - late);
    return target && !(target.weight === 0) ? target.text : "\u2212100";
  }

  function choose(position, quiet) {
    state.position = position;
    const now = grid(), head = now.heads[state.head];
    const target = head.targets.find((each) => each.position === position);
    now.streams.forEach((stream, number) => {
      const flags = target ? seen(now, state.head, number, position) : [];
      const cells = number === now.streams.length - 1
        ? picture.querySelectorAll("td.reads")
        : picture.querySelectorAll(".beside")[number].querySelectorAll("li");
      cells.forEach((cell, at) => cell.classList.toggle("seen", Boolean(flags[at])));
    });
    for (const row of picture.querySelectorAll("tbody tr")) {
      const mine = Number(row.dataset.position) === position;
      row.classList.toggle("chosen", mine && Boolean(target));
      const button = row.querySelector("button");
      if (button) button.setAttribute("aria-pressed", String(mine));
    }
    panel.replaceChildren(...(target ? term(now, head, target) : [make("p", {}, "No position has a target.")]),
      ...total(now, head, target));
    if (!quiet && target) {
      told.textContent = `Target ${target.text} at ${position}, sees `
        + now.streams.map((stream, number) => `${stream.reader} ${ranges(seen(now, state.head, number, position))}`).join("; ")
        + `; loss ${loss(target.loss)}.`;
    }
  }

  function term(now, head, target) {
    const cost = target.weight * target.loss;
    return [
      make("h3", {}, "One target: ", make("span", { class: "token" }, target.text)),
      make("p", {}, `Position ${target.position} sees `
        + now.streams.map((stream, number) =>
          `${now.streams.length > 1 ? `of the ${stream.reader} ` : ""}${ranges(seen(now, state.head, number, target.position))}`).join(", ") + "."),
      formula(mo("\u2212"), mi("w"), thin(), mi("log"), thin(), mi("p"), mo("="),
        mo("\u2212"), mn(fixed(target.weight, target.weight === 1 ? 0 : 2)), mo("\u00b7"), mi("log"), thin(),
        mn(target.p.toPrecision(4)), mo("="), math("mn", { class: "chosen" }, loss(cost))),
      table(`The likeliest of ${head.classes} classes here`, ["class", "probability", ""],
        target.likeliest.map((each) => [
          (each.text === target.text ? "\u2713 " : "") + each.text, share(each.p), bar(each.p, 1)]),
        { class: "bars likeliest" }),
    ];
  }

  function total(now, head, target) {
    if (!head.targets.length) return [];
    const shown = few(head.targets, target);
    const terms = shown.flatMap((each, at) => [
      ...(at ? [mo("+")] : []),
      each ? math("mn", { class: each === target ? "chosen" : "" }, loss(each.weight * each.loss)) : mo("\u2026"),
    ]);
    const parts = [
      make("h3", {}, "Sum, divisor, mean"),
      formula(terms, mo("="), math("mn", { class: "sum" }, loss(head.sum))),
      formula(fraction([mtext("sum")], [mtext("divisor")]), mo("="),
        fraction([mn(loss(head.sum))], [math("mn", { class: "divisor" }, String(head.count))]), mo("="),
        math("mn", { class: "mean" }, loss(head.mean))),
      make("p", {}, `A uniform guess costs ln ${head.classes} = ${loss(head.uniform)}.`
        + (head.count > head.targets.length ? ` ${head.count - head.targets.length} targets weigh 0: they are not shown, and count in the divisor.` : "")),
    ];
    if (now.heads.length > 1) {
      const pieces = now.heads.flatMap((each, at) => [...(at ? [mo("+")] : []),
        ...(each.weight === 1 ? [] : [mn(String(each.weight)), mo("\u00b7")]), mn(loss(each.mean))]);
      const minimised = now.heads.reduce((sum, each) => sum + each.weight * each.mean, 0);
      parts.push(make("p", {}, "Training minimises the sum over the heads:"),
        formula(pieces, mo("="), mn(loss(minimised))));
    }
    return parts;
  }

  /* The first target, the chosen one and the last one, with null for those left out. */
  function few(targets, chosen) {
    const kept = new Set([0, targets.indexOf(chosen), targets.length - 1].filter((at) => at >= 0 && at < targets.length));
    const found = [];
    let last = -1;
    for (const at of [...kept].sort((one, other) => one - other)) {
      if (at > last + 1) found.push(null);
      found.push(targets[at]);
      last = at;
    }
    return found;
  }

  function named() {
    const role = objective().role;
    return table(`What transformers calls it, for a model of the role ${role}`, ["here", "there"], data.names[role]);
  }

  state.value = middle();
  build();
};

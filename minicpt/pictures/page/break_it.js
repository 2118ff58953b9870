/* Break it: a switch for each fault, wrong beside right, and the proof that catches it. */
"use strict";

sections["break-it"] = function (root, data) {
  const objectives = [...new Set(data.faults.map((each) => each.objective))];
  const state = { objective: 0, fault: null };
  const list = make("div", { class: "faults", role: "group", "aria-label": "Faults" });
  const panel = make("div", { class: "panel", "aria-live": "polite" });
  const counted = (name) => data.faults.filter((each) => each.objective === name).length;
  root.append(
    choice("Objective", objectives.map((each) => `${each} (${counted(each)})`), 0, (at) => {
      state.objective = at;
      build();
    }),
    list, panel);

  function build() {
    const mine = data.faults.filter((each) => each.objective === objectives[state.objective]);
    const switches = mine.map((fault) => make("button", {
      type: "button", role: "switch", "aria-checked": "false", "data-fault": fault.name,
      class: fault.wrong ? "" : "unseen-here",
      click: () => { state.fault = state.fault === fault ? null : fault; draw(); },
      "aria-label": `${fault.name}: ${fault.what}`, title: fault.what,
    }, make("span", { class: "knob", "aria-hidden": "true" }), make("code", {}, fault.name)));
    list.replaceChildren(...switches);
    roving(list, () => switches.map((each) => [each]));
    state.fault = mine.find((each) => each.wrong) || mine[0];
    draw();
  }

  function draw() {
    for (const each of list.children) {
      each.setAttribute("aria-checked", String(Boolean(state.fault && each.dataset.fault === state.fault.name)));
    }
    const fault = state.fault;
    if (!fault) {
      panel.replaceChildren(make("p", {}, "Everything is right. Switch a mistake on."));
      return;
    }
    const caught = make("div", { class: "caught" },
      make("h3", {}, `Caught by ${fault.caught.length} proof${fault.caught.length === 1 ? "" : "s"}`),
      make("dl", {}, fault.caught.slice(0, 3).flatMap(([proof, message]) =>
        [make("dt", {}, proof), make("dd", {}, message)])),
      make("p", { class: "small" }, "See for yourself: ",
        make("code", {}, `minicpt verify --break ${fault.name}`)));
    if (!fault.wrong) {
      panel.replaceChildren(title(fault),
        make("p", {}, `One picture of this text shows nothing of it: ${fault.reason}.`), caught);
      return;
    }
    const right = unpack(data.rights[fault.right]), wrong = unpack(fault.wrong);
    panel.replaceChildren(
      title(fault),
      leaks(fault, right, wrong),
      make("div", { class: "pair even" },
        side("\u2713 Right", right, wrong, [], fault.lost, "right"),
        side("\u2717 Wrong", wrong, right, fault.leaks, [], "wrong")),
      caught);
  }

  const title = (fault) => make("h3", { class: "fault" }, fault.what[0].toUpperCase() + fault.what.slice(1),
    fault.padded ? " (padded here, as in a batch with a longer passage)" : "");

  function leaks(fault, right, wrong) {
    const told = [];
    if (fault.leaks.length) {
      const [head, stream, position, at] = fault.leaks[0];
      told.push(`${fault.leaks.length} leak${fault.leaks.length > 1 ? "s" : ""}: the target at ${position} `
        + `depends on position ${at} of the ${wrong.streams[stream].reader}, `
        + `\u201c${wrong.streams[stream].words[at]}\u201d, and must not`
        + (wrong.heads.length > 1 ? ` (head ${wrong.heads[head].name}).` : "."));
    }
    if (fault.lost.length) {
      const [, stream, position, at] = fault.lost[0];
      told.push(`${fault.lost.length} lost: the target at ${position} no longer depends on position ${at} of the `
        + `${right.streams[stream].reader}, and should.`);
    }
    return make("p", { class: "verdict" }, told.join(" ") || "What may be seen is the same; tokens or numbers differ.");
  }

  function side(title, mine, other, leaked, lost, kind) {
    return make("div", { class: kind }, make("h3", {}, title), mine.heads.map((head, number) => {
      const there = other.heads.find((each) => each.name === head.name);
      return make("div", {},
        mine.streams.slice(0, -1).map((stream, at) => others(stream, other.streams[at])),
        frame(`${title}: head ${head.name}`, grid(mine, other, head, there, number, leaked, lost)),
        sums(head, there));
    }));
  }

  function others(stream, there) {
    return make("div", { class: "beside" }, make("p", { class: "label" }, `The ${stream.reader} reads`),
      make("ol", { class: "tokens", start: 0 }, stream.words.map((each, at) =>
        make("li", { class: there && there.words[at] === each ? "" : "differs" }, each))));
  }

  function grid(mine, other, head, there, number, leaked, lost) {
    const last = mine.streams.length - 1;
    const at = (places, position) => places
      .filter((each) => each[0] === number && each[1] === last && each[2] === position).map((each) => each[3]);
    const rows = own(mine).words.map((text, position) => {
      const target = head.targets.find((each) => each.position === position);
      const twin = there && there.targets.find((each) => each.position === position);
      const flags = seen(mine, number, last, position);
      const differs = (one, two) => one === two ? "" : "differs";
      const number_ = (value) => value === undefined ? "" : value;
      return make("tr", {},
        make("th", { scope: "row" }, String(position)),
        make("td", { class: differs(text, own(other).words[position]) }, text),
        make("td", { class: "sees" }, target ? strip(flags, position, at(leaked, position), at(lost, position)) : ""),
        make("td", { class: differs(target && target.text, twin && twin.text) }, target ? target.text : make("span", { class: "none" }, "no target")),
        make("td", { class: `number ${differs(close(number_(target && target.loss)), close(number_(twin && twin.loss)))}` },
          target ? (target.weight === 1 ? "" : `${fixed(target.weight, 2)} \u00b7 `) + loss(target.loss) : ""));
    });
    return make("table", { class: "grid" }, make("caption", {}, `Head \u201c${head.name}\u201d`),
      make("thead", {}, make("tr", {}, ["", "reads", "sees", "target", "loss"].map((each) => make("th", { scope: "col" }, each)))),
      make("tbody", {}, rows));
  }

  const close = (value) => typeof value === "number" ? value.toFixed(4) : value;

  function sums(head, there) {
    const differs = (name) => there && close(there[name]) === close(head[name]) ? "" : "differs";
    return make("p", { class: "sums" },
      make("span", { class: differs("sum") }, `sum ${loss(head.sum)}`), " / ",
      make("span", { class: differs("count") }, `${head.count} targets`), " = ",
      make("span", { class: differs("mean") }, `${loss(head.mean)} nats`));
  }

  if (data.faults.length) build();
};

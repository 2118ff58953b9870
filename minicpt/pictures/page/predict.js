/* Predict first: one question at a time, a second try, then the reason. */
"use strict";

sections.predict = function (root, data) {
  const questions = data.questions, tries = questions.map(() => 0), right = questions.map(() => null);
  let at = 0;
  const card = make("div", { class: "card" });
  const progress = make("p", { class: "progress" });
  const back = make("button", { type: "button", click: () => go(at - 1) }, "\u2190 Back");
  const next = make("button", { type: "button", click: () => go(at + 1) }, "Next \u2192");
  root.append(progress, card, make("div", { class: "controls" }, back, next));

  function go(to) {
    at = Math.max(0, Math.min(questions.length - 1, to));
    draw();
    card.querySelector("h3").focus();
  }

  function draw() {
    const question = questions[at];
    const answer = question.kind === "number" ? numberOf(question) : cellsOf(question);
    const said = make("div", { class: "answer", role: "status", "aria-live": "polite" });
    const check = make("button", { type: "submit", class: "main" }, "Check");
    const form = make("form", { submit: (event) => { event.preventDefault(); judge(question, answer, said, check); } },
      answer.element, check);
    card.replaceChildren(
      make("h3", { tabindex: -1 }, make("span", { class: "number" }, `${at + 1} `), question.ask), form, said);
    counted();
    back.disabled = at === 0;
    next.disabled = at === questions.length - 1;
  }

  function counted() {
    const known = right.filter((each) => each === true).length;
    progress.textContent = `Question ${at + 1} of ${questions.length}; ${known} right so far.`;
  }

  function judge(question, answer, said, check) {
    const given = answer.given();
    if (given === null) {
      said.replaceChildren(make("p", {}, question.kind === "number" ? "Write a number first." : "Choose a cell first."));
      return;
    }
    tries[at] += 1;
    const good = answer.judge(given);
    if (good || tries[at] > 1) {
      if (right[at] === null) right[at] = good;
      said.replaceChildren(
        make("p", { class: good ? "right" : "wrong" }, good ? "\u2713 Right." : `\u2717 The answer is ${answer.words()}.`),
        make("p", {}, question.why));
      answer.show();
      check.textContent = "Check again";
    } else {
      said.replaceChildren(make("p", { class: "wrong" }, "\u2717 Not yet. "), make("p", {}, `A hint: ${question.hint} You have a second try.`));
    }
    counted();
  }

  function numberOf(question) {
    const id = `answer-${at}`;
    const input = make("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", size: 8 });
    return {
      element: make("label", { class: "control", for: id }, make("span", {}, "Your answer"), input, question.unit),
      given: () => {
        const text = input.value.trim().replace(",", ".").replace("\u2212", "-");
        return text === "" || Number.isNaN(Number(text)) ? null : Number(text);
      },
      judge: (value) => Math.abs(value - question.answer) <= question.within + 1e-9,
      words: () => `${question.answer.toFixed(question.places)} ${question.unit}`.trim(),
      show: () => {},
    };
  }

  function cellsOf(question) {
    const chosen = new Set();
    const buttons = question.row.map((each, place) => make("button", {
      type: "button", "aria-pressed": "false", class: "cell", "aria-label": `position ${place}: ${word(each)}`,
      click: () => {
        if (chosen.has(place)) chosen.delete(place);
        else chosen.add(place);
        buttons[place].setAttribute("aria-pressed", String(chosen.has(place)));
      },
    }, make("span", { class: "place", "aria-hidden": "true" }, String(place)), word(each)));
    const group = make("div", { class: "cells", role: "group", "aria-label": "The row" }, buttons);
    roving(group, () => [buttons]);
    const all = make("button", { type: "button", click: () => buttons.forEach((each, place) => { if (!chosen.has(place)) each.click(); }) }, "all");
    const none = make("button", { type: "button", click: () => buttons.forEach((each, place) => { if (chosen.has(place)) each.click(); }) }, "none");
    return {
      element: make("div", {}, group, make("div", { class: "controls" }, all, none)),
      given: () => chosen.size ? [...chosen] : null,
      judge: (value) => value.length === question.answer.length && question.answer.every((each) => chosen.has(each)),
      words: () => `position${question.answer.length > 1 ? "s" : ""} ${ranges(question.row.map((_, place) => question.answer.includes(place)))}`,
      show: () => buttons.forEach((each, place) => each.classList.toggle("solution", question.answer.includes(place))),
    };
  }

  if (questions.length) draw();
};

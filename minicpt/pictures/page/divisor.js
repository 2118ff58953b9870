/* The divisor: sum over sum against a mean of means, for two micro-batches. */
"use strict";

sections.divisor = function (root, data) {
  const counts = [...data.counts], sizes = data.parts.map((part) => part.length);
  const letters = ["A", "B"];
  const batches = make("div", { class: "pair even" }), result = make("div", { class: "pair even" });
  const told = make("p", { class: "verdict", "aria-live": "polite" });
  root.append(
    make("div", { class: "controls" }, letters.map((letter, at) =>
      slider(`Targets of micro-batch ${letter}`, 1, sizes[at], counts[at], String,
        (count) => { counts[at] = count; draw(); }))),
    batches, result, told);

  function draw() {
    const kept = data.parts.map((part, at) => part.slice(0, counts[at]));
    const sums = kept.map((part) => part.reduce((sum, each) => sum + each[1], 0));
    const right = (sums[0] + sums[1]) / (counts[0] + counts[1]);
    const means = sums.map((sum, at) => sum / counts[at]);
    const wrong = (means[0] + means[1]) / 2;
    const weights = counts.map((count) => 1 / (2 * count));
    const fair = 1 / (counts[0] + counts[1]);
    batches.replaceChildren(...kept.map((part, at) => make("div", {},
      make("h3", {}, `Micro-batch ${letters[at]}`),
      frame(`Targets of micro-batch ${letters[at]}`,
        table(`${counts[at]} target${counts[at] > 1 ? "s" : ""}, sum ${loss(sums[at])}`,
          ["target", "loss", "counts, right", "counts, wrong", ""],
          part.map(([text, cost]) => [word(text), loss(cost), fixed(fair), fixed(weights[at]),
            bar(weights[at], 0.5, weights[at] > fair * 1.0001 ? "wrong" : "")]), { class: "bars" })))));
    result.replaceChildren(
      make("div", { class: "right" }, make("h3", {}, "\u2713 Sum over sum"),
        formula(fraction([mn(loss(sums[0])), mo("+"), mn(loss(sums[1]))],
          [mn(String(counts[0])), mo("+"), mn(String(counts[1]))]), mo("="), math("mn", { id: "sum-over-sum" }, loss(right)))),
      make("div", { class: "wrong" }, make("h3", {}, "\u2717 Mean of means"),
        formula(fraction([mn("1")], [mn("2")]), mo("("),
          fraction([mn(loss(sums[0]))], [mn(String(counts[0]))]), mo("+"),
          fraction([mn(loss(sums[1]))], [mn(String(counts[1]))]), mo(")"), mo("="),
          math("mn", { id: "mean-of-means" }, loss(wrong)))));
    told.textContent = counts[0] === counts[1]
      ? "With equal counts both are the same number. That is why this mistake goes unnoticed."
      : `The two differ by ${signed(wrong - right)} nats. In the mean of means a target of ${letters[counts[0] < counts[1] ? 0 : 1]} `
        + `counts ${(Math.max(...weights) / Math.min(...weights)).toFixed(1)} times as much as one of the other.`;
  }
  draw();
};

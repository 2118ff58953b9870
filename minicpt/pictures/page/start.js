/* The tabs, and every section's own script. */
"use strict";

(function () {
  const places = page.tabs.map(([name]) => document.getElementById(name));
  const tabs = page.tabs.map(([name, title], at) => make("button", {
    type: "button", role: "tab", id: `${name}-tab`, "aria-controls": name, "aria-selected": "false",
    click: () => open(at),
  }, make("span", { class: "number" }, String(at + 1)), " ", title));
  const list = make("div", { role: "tablist", "aria-label": "Sections" }, tabs);
  document.getElementById("tabs").replaceWith(list);
  document.documentElement.classList.add("scripted");
  const begun = new Set();

  places.forEach((place, at) => {
    place.setAttribute("role", "tabpanel");
    place.setAttribute("aria-labelledby", `${page.tabs[at][0]}-tab`);
    const plain = place.querySelector(".static");
    if (plain.children.length) {
      const whole = make("details", { class: "plain" }, make("summary", {}, "The numbers as plain tables"));
      plain.replaceWith(whole);
      whole.append(plain);
    }
  });
  roving(list, () => [tabs], (at) => open(at));
  window.addEventListener("hashchange", follow);
  window.addEventListener("beforeprint", () => page.tabs.forEach((_, at) => begin(at)));
  follow();

  function follow() {
    const at = page.tabs.findIndex(([name]) => `#${name}` === location.hash);
    open(Math.max(0, at));
  }

  function open(at) {
    tabs.forEach((each, other) => {
      each.setAttribute("aria-selected", String(other === at));
      each.tabIndex = other === at ? 0 : -1;
      places[other].classList.toggle("open", other === at);
    });
    begin(at);
  }

  function begin(at) {
    const [name] = page.tabs[at], data = page.sections[name];
    if (begun.has(name) || data.missing || !sections[name]) return;
    begun.add(name);
    sections[name](places[at].querySelector(".live"), data);
  }
})();

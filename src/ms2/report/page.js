// Hover texts, cursors in curves, and enlarged images. What is hidden and shown is CSS alone.
"use strict";
const tip = document.getElementById("tip");

function tell(text, x, y, home) {
  if (tip.parentElement !== home) home.append(tip); // what is modal hides all that is outside of it
  tip.textContent = text;
  tip.hidden = !text;
  if (!text) return;
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = `${Math.max(4, x + 14 + w > innerWidth ? x - w - 14 : x + 14)}px`;
  tip.style.top = `${Math.max(4, y + 14 + h > innerHeight ? y - h - 14 : y + 14)}px`;
}

const homeOf = (node) => node.closest("dialog") ?? document.body;
const silence = () => {
  tip.hidden = true;
  for (const cursor of document.querySelectorAll(".cursor")) cursor.style.visibility = "hidden";
};

// The point of each curve next to a place along the axis; returns the step that was found.
function point(svg, share, x, y) {
  const { first, last, along } = svg.dataset, start = Number(first), width = Number(last) - start || 1;
  const wanted = start + share * width, distance = (p) => Math.abs(p[0] - wanted);
  const curves = JSON.parse(svg.dataset.curves).map(({ name, points }) => ({
    name, found: points.reduce((a, b) => (distance(b) < distance(a) ? b : a)),
  }));
  const step = curves.reduce((a, b) => (distance(b.found) < distance(a.found) ? b : a)).found[0];
  const lines = curves.filter((c) => c.found[0] === step).map(({ name, found: [, value, smooth] }) =>
    `${name ? `${name}: ` : ""}${value}${smooth === undefined || smooth === value ? "" : ` (smoothed ${smooth})`}`);
  const cursor = svg.querySelector(".cursor"), place = (100 * (step - start)) / width;
  cursor.setAttribute("x1", place);
  cursor.setAttribute("x2", place);
  cursor.style.visibility = "visible";
  tell([`${along} ${step}`, ...lines].join("\n"), x, y, document.body);
  return step;
}

document.addEventListener("pointermove", (event) => {
  const svg = event.target.closest?.("[data-curves]"), told = event.target.closest?.("[data-tip]");
  silence();
  if (svg) {
    const { left, width } = svg.getBoundingClientRect();
    point(svg, (event.clientX - left) / width, event.clientX, event.clientY);
  } else if (told) tell(told.dataset.tip, event.clientX, event.clientY, homeOf(told));
});
document.addEventListener("scroll", silence, { passive: true });

for (const svg of document.querySelectorAll("[data-curves]")) {
  const steps = [...new Set(JSON.parse(svg.dataset.curves).flatMap((c) => c.points.map((p) => p[0])))].sort((a, b) => a - b);
  let at = -1;
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    at = Math.min(steps.length - 1, Math.max(0, at + move));
    const { left, top, width } = svg.getBoundingClientRect();
    const share = (steps[at] - svg.dataset.first) / (svg.dataset.last - svg.dataset.first || 1);
    silence();
    point(svg, share, left + share * width, top);
  });
  svg.addEventListener("blur", silence);
}

for (const gallery of document.querySelectorAll(".gallery")) {
  const dialog = gallery.querySelector("dialog"), stage = dialog.lastElementChild;
  const tiles = [...gallery.querySelectorAll(".groups .tile")];
  let at = 0;
  const show = (index) => {
    at = (index + tiles.length) % tiles.length;
    const large = tiles[at].cloneNode(true), image = large.querySelector("img");
    large.style.setProperty("--fit", `calc(82dvh * ${image.getAttribute("width") / image.getAttribute("height")})`);
    const words = document.createElement("p");
    words.textContent = tiles[at].getAttribute("aria-label");
    large.addEventListener("click", () => dialog.close());
    stage.replaceChildren(large, words);
    // names of one size, whatever that of the image
    large.querySelector("svg")?.style.setProperty("font-size", `${(13 * image.getAttribute("width")) / large.clientWidth}px`);
    silence();
  };
  tiles.forEach((tile, index) => tile.addEventListener("click", () => { dialog.showModal(); show(index); }));
  dialog.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) show(at + move);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog || event.target === stage) dialog.close(); });
  dialog.addEventListener("close", silence);
}

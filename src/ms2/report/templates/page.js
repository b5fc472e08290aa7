// Charts, tooltips and enlarged images. `vegaEmbed` is bundled with this script; hiding and showing is CSS alone.
const tip = document.getElementById("tip");
const chartConfig = JSON.parse(document.getElementById("chart-config").textContent);

function showTip(text, x, y, parent = document.body) {
  if (tip.parentElement !== parent) parent.append(tip); // a modal dialog covers everything outside it
  tip.textContent = text ?? "";
  tip.hidden = !text;
  if (!text) return;
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = `${Math.max(4, x + 14 + w > innerWidth ? x - w - 14 : x + 14)}px`;
  tip.style.top = `${Math.max(4, y + 14 + h > innerHeight ? y - h - 14 : y + 14)}px`;
}

const hideTip = () => { tip.hidden = true; };
let placeKeyboardTip = null; // while a chart has the focus and shows a point

async function drawChart(element) {
  const spec = JSON.parse(element.nextElementSibling.textContent);
  // Vega-Embed labels the element that it draws in, so that is one inside of the described one.
  const { view } = await vegaEmbed(element.firstElementChild, spec, {
    actions: false,
    ast: true, // expressions are interpreted: the page's policy forbids eval
    config: chartConfig,
    renderer: "svg",
    // near a point rather than on it, Vega-Lite's own text is that of the wrong datum
    tooltip: (handler, event, item, value) =>
      showTip(value == null ? "" : (item.datum.datum ?? item.datum).tip, event.clientX, event.clientY),
  });
  addKeyboard(element, view);
  element.dataset.drawn = "";
}

// Arrow keys select the points of a chart one after the other.
function addKeyboard(element, view) {
  const points = view.data("points");
  const field = view.getState().signals.hover_tuple_fields?.[0]?.field;
  let index = -1;
  const select = (values) =>
    field && view.signal("hover_tuple", values && { unit: "", fields: view.signal("hover_tuple_fields"), values }).run();
  element.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    index = Math.min(points.length - 1, Math.max(0, index + step));
    select([points[index][field]]);
    placeKeyboardTip = () => {
      const { left, top } = element.getBoundingClientRect();
      showTip(points[index].tip, left, top - 14);
    };
    placeKeyboardTip();
  });
  element.addEventListener("blur", () => { select(null); placeKeyboardTip = null; hideTip(); });
}

for (const element of document.querySelectorAll(".plot")) {
  const folded = element.closest("details:not([open])"); // has no width yet
  if (folded) folded.addEventListener("toggle", () => drawChart(element), { once: true });
  else drawChart(element);
}

document.addEventListener("pointermove", (event) => {
  const element = event.target.closest?.("[data-tip]");
  if (element) showTip(element.dataset.tip, event.clientX, event.clientY, element.closest("dialog") ?? document.body);
  else if (!event.target.closest?.(".plot")) hideTip();
});
document.addEventListener("scroll", () => (placeKeyboardTip ?? hideTip)(), { passive: true });

for (const gallery of document.querySelectorAll(".gallery")) {
  const dialog = gallery.querySelector("dialog"), stage = dialog.lastElementChild;
  const tiles = [...gallery.querySelectorAll(".groups .tile")];
  let current = 0;
  const show = (index) => {
    current = (index + tiles.length) % tiles.length;
    const large = tiles[current].cloneNode(true), image = large.querySelector("img");
    large.style.setProperty("--fit", `calc(82dvh * ${image.getAttribute("width") / image.getAttribute("height")})`);
    const words = document.createElement("p");
    words.textContent = tiles[current].getAttribute("aria-label");
    large.addEventListener("click", () => dialog.close());
    stage.replaceChildren(large, words);
    // class names of one size, whatever the size of the image
    large.querySelector("svg")?.style.setProperty("font-size", `${(13 * image.getAttribute("width")) / large.clientWidth}px`);
    hideTip();
  };
  tiles.forEach((tile, index) => tile.addEventListener("click", () => { dialog.showModal(); show(index); }));
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) show(current + step);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog || event.target === stage) dialog.close(); });
  dialog.addEventListener("close", hideTip);
}

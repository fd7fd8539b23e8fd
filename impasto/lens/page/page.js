"use strict";
// The page of an atlas. Its data come from atlas.js and one script per layer, and enter the page as text, never as markup.
// Addresses: #conv5 is a layer, #conv5/17 a unit, #all all layers.

const $ = (id) => document.getElementById(id);
const SHOWN = ATLAS.side * ATLAS.side;
const FIRST_OCTAVE = -12; // the histogram begins at 2^-12, in half octaves

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
const percent = (part, of) => (of ? `${Math.round((100 * part) / of)} %` : "0 %");
const padded = (n, digits) => String(n).padStart(digits, "0");
const address = (unit) => `#${encodeURIComponent(ATLAS.layers[unit.layer].name)}/${unit.n}`;
const unitName = (unit) => `${ATLAS.layers[unit.layer].name}/${unit.n}`;

// The units' data. A page from disk may load scripts, but must not fetch data.

const loaded = new Map(); // layer -> promise of its units
const waiting = new Map();

function arrived(layer, lines) { // called by the layers' scripts
  waiting.get(layer)(lines.map((line, n) => ({ ...line, layer, n, patches: line.patches.map(patch) })));
}

function patch([column, drawn, value, picture, y, x, x0, y0, x1, y1, padding]) {
  return { column, drawn, value, name: ATLAS.names[picture], y, x, box: [x0, y0, x1, y1], padding };
}

function load(layer) {
  if (!loaded.has(layer)) {
    loaded.set(layer, new Promise((resolve, reject) => {
      waiting.set(layer, resolve);
      const script = make("script", { src: `parts/${padded(layer, 2)}.js` });
      script.onerror = () => reject(new Error(`the file ${script.getAttribute("src")} is missing: make the page again`));
      document.head.append(script);
    }));
  }
  return loaded.get(layer);
}

const sprites = new Map(); // file -> promise of its image

function sprite(unit, kind, interior) {
  const name = `${padded(unit.layer, 2)}-${padded(Math.floor(unit.n / ATLAS.rows), 3)}-${interior ? "interior-" : ""}${kind}.webp`;
  return image(name);
}

function image(name) {
  if (!sprites.has(name)) {
    sprites.set(name, new Promise((resolve, reject) => {
      const found = new Image();
      found.onload = () => resolve(found);
      found.onerror = () => reject(new Error(`the file parts/${name} is missing: make the page again`));
      found.src = `parts/${name}`;
    }));
  }
  return sprites.get(name);
}

// A unit's patches in the chosen ranking, the strongest first.
function ranking(unit, interior) {
  if (!interior) return unit.patches.filter((entry) => entry.column < SHOWN);
  return unit.interior.map((column) => unit.patches.find((entry) => entry.column === column));
}

async function draw(canvas, unit, kind, patches, across) {
  const side = Math.round((canvas.clientWidth || ATLAS.cell * across) * (window.devicePixelRatio || 1));
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), cell = side / across, gap = across > 1 ? Math.max(1, Math.round(side / 160)) : 0;
  context.imageSmoothingQuality = "high";
  const pictures = await Promise.all(patches.map((entry) => entry.drawn && sprite(unit, kind, entry.column >= SHOWN)));
  patches.forEach((entry, n) => {
    if (!entry.drawn) return;
    const from = [(entry.column % SHOWN) * ATLAS.cell, (unit.n % ATLAS.rows) * ATLAS.cell, ATLAS.cell, ATLAS.cell];
    const to = [Math.round((n % across) * cell), Math.round(Math.floor(n / across) * cell), Math.round(cell) - gap, Math.round(cell) - gap];
    context.drawImage(pictures[n], ...from, ...to);
  });
}

// The list

const state = { layer: 0, unit: null, shown: [], all: false, focus: null, arriving: false, turn: 0 };
const interior = (layer) => (!ATLAS.everywhere || $("interior").checked) && ATLAS.layers[layer].inside > 0; // deep layers may have no such positions

const ORDERS = {
  number: () => 0,
  clear: (a, b) => score(b) - score(a),
  often: (a, b) => b.fired - a.fired,
  seldom: (a, b) => a.fired - b.fired,
  largest: (a, b) => b.largest - a.largest,
  typical: (a, b) => b.q50 - a.q50,
  inside: (a, b) => share(a) - share(b),
};
const score = (unit) => (unit.clarity ? unit.clarity[0] : -1); // units without a score come last
const share = (unit) => (unit.fired ? unit.padded / unit.fired : 2); // units that are never active come last

function matches(unit, query) {
  if (!query) return true;
  if (/^\d+$/.test(query)) return unit.n === Number(query);
  if (query.includes("/") && query === unitName(unit).toLowerCase()) return true;
  if (unit.word && unit.word.toLowerCase().includes(query)) return true;
  return ranking(unit, interior(unit.layer)).some((entry) => entry.name.toLowerCase().includes(query));
}

function query() {
  return $("query").value.trim().toLowerCase();
}

async function chosen() {
  const layers = state.all ? ATLAS.layers.map((_, n) => n) : [state.layer];
  const units = (await Promise.all(layers.map(load))).flat();
  const order = ORDERS[$("order").value];
  const clear = (unit) => !$("clear").checked || score(unit) > ATLAS.layers[unit.layer].chance;
  return units.filter((unit) => clear(unit) && matches(unit, query())).sort((a, b) => order(a, b) || a.layer - b.layer || a.n - b.n);
}

const visible = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) draw(target, target.unit, $("kind").value, ranking(target.unit, interior(target.unit.layer)), ATLAS.side).catch(problem);
    else target.width = target.height = 0; // to save memory with thousands of units
  }
}, { rootMargin: "300px" });

function card(unit) {
  const canvas = make("canvas", { "aria-hidden": "true", width: 0, height: 0 });
  canvas.unit = unit;
  const clear = unit.clarity ? `clarity ${unit.clarity[0].toFixed(2)}` : `${number(unit.largest)}, in ${percent(unit.fired, ATLAS.pictures)}`;
  const title = unit.clarity ? "how well its strongest patches are told from its weakest: 0.5 is chance" : "its maximum, and the share of pictures in which it is active";
  const link = make("a", { href: address(unit), title: unit.fired ? title : "" }), text = unit.fired ? clear : "never active";
  link.append(canvas, make("strong", {}, state.all ? unitName(unit) : `${unit.n}`), make("span", { class: "note" }, text));
  if (unit.word) link.append(make("span", { class: "note word" }, unit.word));
  return make("li", {}, link);
}

async function showList() {
  const turn = ++state.turn, shown = await chosen();
  if (turn !== state.turn) return; // another list or unit was requested meanwhile
  state.shown = shown;
  visible.disconnect();
  const list = make("ul", { class: "units" }, ...state.shown.map(card));
  $("list").replaceChildren(list);
  list.querySelectorAll("canvas").forEach((canvas) => visible.observe(canvas));
  $("list").hidden = false;
  $("unit").hidden = true;
  $("status").textContent = statusText(state.shown.length);
  document.title = `${state.all ? "all layers" : ATLAS.layers[state.layer].name} – ${ATLAS.net}`;
  const back = state.focus && list.querySelector(`a[href="${CSS.escape(state.focus)}"]`);
  if (back) back.focus();
  state.focus = null;
}

function statusText(count) {
  const layer = ATLAS.layers[state.layer], of = state.all ? ATLAS.layers.reduce((sum, other) => sum + other.units, 0) : layer.units;
  const where = state.all ? "of all layers" : `of ${layer.name}. Receptive field: ${layer.size} × ${layer.size} pixels of the net’s input`;
  const found = query() || $("clear").checked ? `${count} of ${of} units ${where}` : `${of} units ${where}`;
  const places = layer.inside && !state.all && interior(state.layer) ? ` Ranked at the ${layer.inside} of ${layer.places} positions whose fields see no padding.` : "";
  return `${found}.${places} Beside each: ${ATLAS.clarity ? "its clarity, from 0.5 (chance) to 1" : "its maximum, and the share of pictures in which it is active"}.`;
}

// A unit

async function showUnit() {
  const turn = ++state.turn, unit = (await load(state.layer))[state.unit.n];
  const shown = state.shown.includes(unit) ? state.shown : await chosen();
  if (turn !== state.turn) return;
  state.shown = shown;
  const patches = ranking(unit, interior(unit.layer)), heading = make("h2", { tabindex: "-1" }, `${ATLAS.layers[unit.layer].name}, unit ${unit.n}`);
  $("unit").replaceChildren(steps(unit), heading, inWords(unit), blocks(unit, patches), table(patches), numbers(unit), spread(unit));
  $("list").hidden = true;
  $("unit").hidden = false;
  $("status").textContent = "";
  document.title = `${unitName(unit)} – ${ATLAS.net}`;
  if (state.arriving) {
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  state.arriving = false;
  for (const canvas of $("unit").querySelectorAll(".nine canvas")) {
    if (canvas.patch) draw(canvas, unit, canvas.kind, [canvas.patch], 1).catch(problem);
  }
}

function neighbours(unit) {
  const at = state.shown.findIndex((other) => other.layer === unit.layer && other.n === unit.n);
  return at < 0 ? [] : [state.shown[at - 1], state.shown[at + 1]];
}

function steps(unit) {
  const [before, after] = neighbours(unit), nav = make("nav", { class: "steps", "aria-label": "Other units" });
  nav.append(make("a", { href: listAddress() }, "↑ back to the list"));
  if (before) nav.append(make("a", { href: address(before), rel: "prev" }, `← ${unitName(before)}`));
  if (after) nav.append(make("a", { href: address(after), rel: "next" }, `${unitName(after)} →`));
  return nav;
}

const listAddress = () => (state.all ? "#all" : `#${encodeURIComponent(ATLAS.layers[state.layer].name)}`);

function inWords(unit) {
  if (!unit.fired) return make("p", {}, `Dead: in none of the ${ATLAS.pictures} pictures is it active. There is nothing to draw.`);
  return make("p", {}, `Active in ${unit.fired} of ${ATLAS.pictures} pictures.`);
}

function blocks(unit, patches) {
  const box = make("div", { class: "blocks" }), ranked = interior(unit.layer) ? "at positions without padding" : "at all positions";
  if (ATLAS.layers[unit.layer].name.replace(/:pre$/, "") === ATLAS.filters) box.append(filter(unit));
  if (patches.length) {
    box.append(nine(unit, "patches", patches, `Its patches, the strongest first, ${ranked}. Hatched: outside the net’s input.`));
    box.append(nine(unit, "projections", patches, `Their projections onto the pixels (${ATLAS.rule}). Grey is 0; each has its own scale.`));
  } else if (unit.fired) {
    box.append(make("p", {}, interior(unit.layer) ? "It is not active at positions without padding." : "It has no patch."));
  }
  box.append(...unit.dreams.map(dream));
  return box;
}

function nine(unit, kind, patches, caption) {
  const list = make("ol", { class: "nine" });
  patches.forEach((entry, n) => {
    const what = kind === "patches" ? "patch" : "projection";
    const description = `${what} ${n + 1}: value ${number(entry.value)}, ${entry.name}${entry.padding ? ", with padding" : ""}${entry.drawn ? "" : ", the picture is missing"}`;
    const canvas = make("canvas", { role: "img", "aria-label": description, title: description, class: entry.drawn ? "" : "empty" });
    [canvas.kind, canvas.patch] = [kind, entry];
    list.append(make("li", {}, canvas));
  });
  return make("figure", {}, list, make("figcaption", {}, caption));
}

function filter(unit) {
  const canvas = make("canvas", { class: "picture", role: "img", "aria-label": `the filter of unit ${unit.n}` });
  image("filters.png").then((all) => {
    canvas.width = canvas.height = 16 * all.width;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(all, 0, unit.n * all.width, all.width, all.width, 0, 0, canvas.width, canvas.width);
  }).catch(problem);
  return make("figure", {}, canvas, make("figcaption", {}, "Its filter, in the picture’s colours. Grey is 0."));
}

function dream(info) {
  const what = info.channel ? "A dream of its channel: optimised to activate it everywhere" : "A dream: a picture optimised to activate it";
  const reached = info.reached.map(number).join(", ");
  const text = info.reached.some((value) => value <= 0) ? "It is not active: the picture shows nothing." : `It reaches ${reached}, after ${info.steps} steps.`;
  const drawn = make("img", { class: "picture", src: `parts/${info.file}`, width: info.width, height: info.height, loading: "lazy", alt: `dream: ${text}` });
  return make("figure", {}, drawn, make("figcaption", {}, `${what}. ${text}`));
}

function table(patches) {
  if (!patches.length) return "";
  const head = ["", "value", "picture", "box in pixels: x, y to x, y", "position in the map: y, x", "padding"];
  const rows = patches.map((entry, n) => {
    const [x0, y0, x1, y1] = entry.box.map((side) => side.toFixed(0));
    const cells = [make("bdi", {}, entry.name), `${x0}, ${y0} to ${x1}, ${y1}`, `${entry.y}, ${entry.x}`, entry.padding ? "with padding" : ""];
    const row = make("tr", {}, make("td", { class: "number" }, `${n + 1}`), make("td", { class: "number" }, number(entry.value)));
    row.append(...cells.map((cell) => make("td", {}, cell)));
    return row;
  });
  const header = make("tr", {}, ...head.map((text, n) => make("th", { scope: "col", class: n < 2 ? "number" : "" }, text)));
  const made = make("table", {}, make("caption", {}, "Where the patches are"), make("thead", {}, header), make("tbody", {}, ...rows));
  return make("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "Where the patches are" }, made);
}

function numbers(unit) {
  const n = ATLAS.pictures, rows = [
    ["maximum", number(unit.largest), `the largest activation in ${n} pictures`],
    ["active in", percent(unit.fired, n), `in ${unit.fired} of ${n} pictures its maximum is above 0`],
    ["padding in", percent(unit.padded, unit.fired), `in ${unit.padded} of these ${unit.fired} the receptive field of its maximum has padding`],
    ["median", number(unit.q50), "of its maximum in a picture, to 9 %"],
    ["90th percentile", number(unit.q90), "of its maximum in a picture"],
    ["99th percentile", number(unit.q99), "of its maximum in a picture"],
  ];
  if (unit.clarity) {
    const [score, low, high] = unit.clarity.map((value) => value.toFixed(2));
    rows.unshift(["clarity", score, `from ${low} to ${high}: how well its strongest patches are told from its weakest. 0.5 is chance, 1 cannot be mistaken`]);
  }
  if (unit.word) {
    const [, word, count] = unit.word.match(/^(.*) (\d+ of \d+)$/);
    rows.unshift(["word", word, `${count} of its patches show it, by a classifier of photographs that knows the classes of ImageNet`]);
  }
  if (unit.like) {
    const [other, cosine] = unit.like;
    rows.push(["likeness", cosine.toFixed(2), `cosine between its first projection and that of unit ${other} at the same position; near 1, projections say little about the unit`]);
  }
  const list = rows.map(([name, value, explanation]) => make("div", {}, make("dt", {}, name), make("dd", { class: "number" }, value), make("dd", { class: "note" }, explanation)));
  return make("section", {}, make("h3", {}, "In numbers"), make("dl", {}, ...list));
}

function spread(unit) {
  const [silent, ...octaves] = unit.bins, first = octaves.findIndex(Boolean), last = octaves.findLastIndex(Boolean);
  if (first < 0) return "";
  const bins = octaves.slice(first, last + 1), most = Math.max(silent, ...bins);
  const edge = (n) => number(2 ** (FIRST_OCTAVE + n / 2));
  const bars = bins.map((count, n) => bar(count, most, `between ${edge(first + n)} and ${edge(first + n + 1)} in ${count} pictures`));
  if (silent) bars.unshift(bar(silent, most, `not active in ${silent} pictures`, "silent"));
  const description = `not active in ${silent} of ${ATLAS.pictures} pictures, in the others between ${edge(first)} and ${edge(last + 1)}`;
  const ends = make("div", { class: "ends" }, make("span", {}, silent ? `not active, then ${edge(first)}` : edge(first)), make("span", {}, edge(last + 1)));
  const chart = make("div", { class: "bars", role: "img", "aria-label": description }, ...bars);
  return make("section", {}, make("h3", {}, "Its maximum in each picture"), chart, ends,
    make("p", { class: "note" }, "Height: number of pictures. Two bars to the right, the value doubles. Grey, left: pictures in which it is not active."));
}

function bar(count, most, title, kind = "") {
  const element = make("span", { title, class: kind });
  element.style.height = `${(100 * count) / most}%`;
  return element;
}

// From edges to things: one clear unit of each layer

async function showStrip() {
  const shown = !location.hash && ATLAS.strip.length > 1;
  $("strip").hidden = !shown;
  if (!shown) return;
  const units = await Promise.all(ATLAS.strip.map(async ([layer, n]) => (await load(layer))[n]));
  const items = units.map((unit) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    canvas.unit = unit;
    return make("li", {}, make("a", { href: address(unit) }, canvas, make("strong", {}, unitName(unit))));
  });
  $("strip").replaceChildren(make("h2", {}, "From edges to things"), make("ol", {}, ...items),
    make("p", { class: "note" }, "A clear unit of each layer, with the nine patches that activate it most."));
  for (const canvas of $("strip").querySelectorAll("canvas")) {
    draw(canvas, canvas.unit, "patches", ranking(canvas.unit, interior(canvas.unit.layer)), ATLAS.side).catch(problem);
  }
}

// The address

function problem(error) {
  $("status").replaceChildren(make("span", { class: "problem" }, error.message));
}

function parsed(hash) {
  let text = hash.slice(1);
  try { text = decodeURIComponent(text); } catch { /* not encoded by this page: use it as it is */ }
  const whole = ATLAS.layers.findIndex((layer) => layer.name === text);
  if (whole >= 0 || !text) return { layer: Math.max(0, whole), unit: null };
  if (text === "all") return { all: true, layer: 0, unit: null };
  const slash = text.lastIndexOf("/"), layer = ATLAS.layers.findIndex((layer) => layer.name === text.slice(0, slash)), rest = text.slice(slash + 1);
  if (layer < 0 || !/^\d{1,9}$/.test(rest) || Number(rest) >= ATLAS.layers[layer].units) return null;
  return { layer, unit: { layer, n: Number(rest) } };
}

async function go() {
  const to = parsed(location.hash);
  if (!to) {
    problem(new Error(`There is no unit ${location.hash.slice(1)}. Addresses are like ${ATLAS.layers[0].name}/0.`));
    $("list").hidden = $("unit").hidden = true;
    return;
  }
  if (state.unit && !to.unit) state.focus = address(state.unit);
  if (to.unit && state.all && state.shown.length) to.all = true; // the unit was opened from the list of all layers
  Object.assign(state, { all: Boolean(to.all), layer: to.layer, unit: to.unit, arriving: true });
  for (const link of $("layers").querySelectorAll("a")) {
    link.removeAttribute("aria-current");
    if (link.getAttribute("href") === listAddress()) link.setAttribute("aria-current", "true");
  }
  await Promise.all([refresh(), showStrip().catch(problem)]);
}

const refresh = () => (state.unit ? showUnit() : showList()).catch(problem);

function setUp() {
  const skipped = ATLAS.skipped ? `, ${ATLAS.skipped} could not be used` : "";
  $("net").textContent = `Units of ${ATLAS.net}`;
  $("about").textContent = `The strongest patches of each unit in ${ATLAS.pictures} pictures, at most ${ATLAS.perImage} from each picture${skipped}.`;
  const links = ATLAS.layers.map((layer) => [layer.name, `#${encodeURIComponent(layer.name)}`]);
  if (links.length > 1) links.push(["all layers", "#all"]);
  if (!ATLAS.clarity) {
    $("order").querySelector("[value=clear]").remove();
    $("clear").parentElement.hidden = true;
  }
  if (!ATLAS.everywhere || !ATLAS.layers.some((layer) => layer.inside > 0)) $("interior").parentElement.hidden = true;
  if (ATLAS.coming.length) $("about").append(make("strong", {}, ` This page is being made, or was stopped: ${ATLAS.coming.join(", ")} to come. Load it again to see more.`));
  $("layers").append(...links.map(([name, href]) => make("li", {}, make("a", { href }, name))));
  const seenOf = ATLAS.fit === "whole" ? "the whole picture" : "the square in its middle";
  $("foot").textContent = `Impasto ${ATLAS.version}. Input of the net: pictures with a shorter side of ${ATLAS.size} pixels, ${seenOf}. `
    + `Projections by rule ${ATLAS.rule}; where pooling windows share a switch: ${ATLAS.pooling}. This page loads nothing from a network.`;
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && state.unit) location.hash = listAddress();
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); $("query").focus(); }
  const there = state.unit && { ArrowLeft: 0, ArrowRight: 1 }[event.key];
  const unit = typeof there === "number" && neighbours(state.unit)[there];
  if (unit) location.hash = address(unit);
}

async function find(event) {
  event.preventDefault();
  const to = query().includes("/") && parsed(`#${$("query").value.trim()}`);
  if (to && to.unit) location.hash = address(to.unit);
  else if (state.unit) location.hash = listAddress();
  else if (state.shown.length === 1) location.hash = address(state.shown[0]);
}

setUp();
$("controls").addEventListener("submit", find);
$("controls").addEventListener("change", (event) => {
  if (event.target === $("query")) return; // handled while typing; a list that changes during a click would lose the click
  state.shown = []; // the neighbours of a unit have changed
  refresh();
});
$("query").addEventListener("input", () => { if (!state.unit) refresh(); });
window.addEventListener("hashchange", go);
document.addEventListener("keydown", key);
go();

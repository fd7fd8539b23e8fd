"use strict";
// The page of a style. Its data come from data.js and one script per layer and per map, and enter the page as text, never as
// markup. Addresses: #conv3_1 is a layer, #conv3_1/17 a unit with itself, #conv3_1/17&203 a pair.

const $ = (id) => document.getElementById(id);
const SECONDS = 10; // duration of the running sum when it is played

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));
const percent = (share) => (Math.abs(share) < 0.1 ? `${Number((100 * share).toPrecision(2))}\u00a0%` : `${Math.round(100 * share)}\u00a0%`);
const padded = (n) => String(n).padStart(2, "0");
const address = (n, i, j = i) => `#${encodeURIComponent(STYLE.layers[n].name)}/${i === j ? i : `${i}&${j}`}`;

// The layers' data. A page from disk may load scripts, but must not fetch data.

const loaded = new Map(); // file -> promise
const waiting = new Map();

function load(file, key) {
  if (!loaded.has(file)) {
    loaded.set(file, new Promise((resolve, reject) => {
      waiting.set(key, resolve);
      const script = make("script", { src: `parts/${file}` });
      script.onerror = () => reject(new Error(`the file parts/${file} is missing: read the style again`));
      document.head.append(script);
    }));
  }
  return loaded.get(file);
}

const arrived = (n, layer) => waiting.get(`${n}`)(layer); // called by the layers' scripts
const mapped = (n, unit, text) => waiting.get(`${n}/${unit}`)(text); // called by the maps' scripts
const loadLayer = (n) => load(`${padded(n)}.js`, `${n}`);

async function loadMap(n, unit) {
  return new Float32Array(await unpacked(await load(`${padded(n)}-map-${unit}.js`, `${n}/${unit}`)));
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Colours of numbers

const RAMP = [[250, 246, 238], [236, 196, 140], [196, 110, 60], [112, 44, 50], [34, 18, 38]]; // from none to much
const BOTH = [[24, 70, 120], [120, 165, 200], [246, 243, 238], [222, 150, 90], [150, 58, 14]]; // from -1 to 1

function tint(colors, share) {
  const at = Math.min(1, Math.max(0, share)) * (colors.length - 1), n = Math.min(colors.length - 2, Math.floor(at));
  return colors[n].map((from, k) => from + (at - n) * (colors[n + 1][k] - from));
}

function painted(canvas, width, height, colorAt) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), data = context.createImageData(width, height);
  for (let n = 0; n < width * height; n++) data.data.set([...colorAt(n), 255], 4 * n);
  context.putImageData(data, 0, 0);
}

// The opening

function setUp() {
  $("title").textContent = `The style of ${STYLE.painting} in ${STYLE.net.replace("-", "\u2011")}`;
  $("about").textContent = "A style is a table (the Gram matrix) for each of these layers: how active each unit is in the painting, and how "
    + "often each pair is active at the same position. The positions themselves do not count. Deeper layers have larger receptive fields.";
  Object.assign($("painting"), { src: "parts/painting.webp", alt: `the painting ${STYLE.painting}`, width: STYLE.width, height: STYLE.height });
  $("division").replaceChildren(divided());
  $("layers").append(...STYLE.layers.map((layer) => make("li", {}, make("a", { href: `#${encodeURIComponent(layer.name)}` }, layer.name))));
  $("foot").textContent = `Impasto ${STYLE.version}. Read at ${STYLE.width} × ${STYLE.height} pixels, ${STYLE.pooling} pooling. Lifts: relative to `
    + `${STYLE.photographs}. This page loads nothing from a network.`;
}

function divided() {
  const rows = STYLE.layers.map((layer) => make("tr", {}, make("th", { scope: "row" }, layer.name), make("td", {}, `${layer.size} px`), bar(layer.tones), bar(layer.colors)));
  const head = ["layer", "field", "style left in grey tones", "style left in blurred colours"].map((text) => make("th", { scope: "col" }, text));
  const caption = make("caption", {}, "Receptive field, texture and colour by layer");
  const table = make("table", {}, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  const explanation = "As a share of the style cost between the painting and its mean colour. What is lost in grey tones is colour, what is lost by "
    + "blurring is texture. Below 0 the version is less like the painting than its mean colour is.";
  return make("div", { class: "wide" }, table, make("p", { class: "note" }, explanation));
}

function bar(share) {
  const inner = make("i"), cell = make("td", {}, make("span", { class: "share", "aria-hidden": "true" }, inner), percent(share));
  inner.style.width = `${100 * Math.max(0, share)}%`;
  return cell;
}

// A layer

async function showLayer(n) {
  const turn = ++state.turn, layer = await loadLayer(n);
  if (turn !== state.turn) return;
  const { name } = STYLE.layers[n], heading = make("h2", { tabindex: "-1" }, name);
  const lead = `${layer.channels} units, each at ${layer.height} × ${layer.width} positions with receptive fields of ${layer.size} × ${layer.size} pixels.`;
  $("layer").replaceChildren(
    heading, make("p", { class: "lead" }, lead), matrix(n, layer),
    units(n, layer, "Most prevalent units", "The units with the largest G_ii. Some are strong in every picture: compare the lift.", layer.byValue),
    units(n, layer, "More than in photographs", `The units with the largest lift: G_ii relative to ${STYLE.photographs}.`, layer.byLift),
    pairs(n, layer, "Pairs with the largest entries", "Two units that are strongly active at the same positions: the largest G_ij.", "value"),
    pairs(n, layer, "Pairs that occur together", "Where one is above its mean, so is the other, more than by chance.", "together"),
    pairs(n, layer, "Pairs that avoid each other", "Where one is above its mean, the other is below, more than by chance.", "apart"),
    directions(n, layer),
  );
  present("layer", heading, `${name} – ${STYLE.painting}`);
}

function matrix(n, layer) {
  const canvas = make("canvas", { role: "img", "aria-label": `the Gram matrix of ${STYLE.layers[n].name}, ${layer.channels} units by ${layer.channels}, in clustered order` });
  const readout = make("p", { class: "readout", "aria-live": "off" }), scale = make("div", { class: "scale" });
  const buttons = [["gram", "Gram matrix"], ["correlation", "Correlation"]].map(([kind, text]) => {
    const button = make("button", { type: "button" }, text);
    button.onclick = () => show(kind);
    return [kind, button];
  });
  let bytes = null;
  async function show(kind) {
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === kind));
    bytes ||= { gram: new Uint8Array(await unpacked(layer.gram)), correlation: new Int8Array(await unpacked(layer.correlation)) };
    const colors = kind === "gram" ? (at) => tint(RAMP, bytes.gram[at] / 255) : (at) => tint(BOTH, 0.5 + bytes.correlation[at] / 254);
    painted(canvas, layer.channels, layer.channels, colors);
    scale.replaceChildren(...legend(kind, layer));
    readout.textContent = "Point at an entry to read it; click to see where it comes from in the painting.";
  }
  const at = (event) => place(event, canvas, layer.channels, layer.channels);
  canvas.onpointermove = (event) => { readout.textContent = entry(layer, bytes, ...at(event)); };
  canvas.onclick = (event) => {
    const [row, column] = at(event), [i, j] = [layer.order[row], layer.order[column]].sort((a, b) => a - b);
    if (layer.units[i] && layer.units[j]) location.hash = address(n, i, j);
    else readout.textContent = `${entry(layer, bytes, row, column)} The page has maps only of the ${Object.keys(layer.units).length} units that it lists, without ${layer.units[i] ? j : i}.`;
  };
  show("gram").catch(problem);
  const explanation = "Rows and columns are units, ordered so that correlated ones are neighbours: blocks are groups. The Gram matrix is drawn "
    + "on a logarithmic scale. The correlation does not depend on how active the units are, only on whether they are active together.";
  const choice = make("div", { class: "choice", role: "group", "aria-label": "Matrix" }, ...buttons.map(([, button]) => button));
  return make("div", { class: "matrix" }, canvas, make("div", {}, choice, scale, make("p", { class: "note" }, explanation), readout));
}

function legend(kind, layer) {
  const strip = make("canvas", { "aria-hidden": "true" });
  painted(strip, 100, 1, (at) => tint(kind === "gram" ? RAMP : BOTH, at / 99));
  const ends = kind === "gram" ? [`G/M ${number(layer.least)} or less`, number(layer.largest)] : ["−1, apart", "1, together"];
  return [make("span", {}, ends[0]), strip, make("span", {}, ends[1])];
}

function entry(layer, bytes, row, column) {
  if (!bytes) return "";
  const at = row * layer.channels + column, [i, j] = [layer.order[row], layer.order[column]];
  const value = layer.least * (layer.largest / layer.least) ** (bytes.gram[at] / 255), names = [i, j].map((unit) => unitName(layer, unit));
  if (i === j) return `Unit ${names[0]} with itself: G/M about ${number(value)}.`;
  return `Units ${names[0]} and ${names[1]}: G/M about ${number(value)}, correlation about ${(bytes.correlation[at] / 127).toFixed(2)}.`;
}

const unitName = (layer, unit) => (layer.units[unit] ? `${unit} (${layer.units[unit].name})` : `${unit}`);

function place(event, canvas, height, width) {
  const box = canvas.getBoundingClientRect();
  const at = (value, length) => Math.min(length - 1, Math.max(0, Math.floor(value * length)));
  return [at((event.clientY - box.top) / box.height, height), at((event.clientX - box.left) / box.width, width)];
}

function section(title, explanation, cards) {
  const none = make("p", {}, "None.");
  return make("section", {}, make("h3", {}, title), make("p", { class: "note" }, explanation), cards.length ? make("ul", { class: "cards" }, ...cards) : none);
}

const picture = (file, alt, kind = "") => make("img", { src: `parts/${file}`, alt, loading: "lazy", class: kind });

function where(file, alt) {
  const image = picture(file, alt, "where");
  image.style.aspectRatio = `${STYLE.width} / ${STYLE.height}`;
  return image;
}

function nines(n, unit, layer) {
  const files = [[`${padded(n)}-own-${unit}.webp`, `the painting’s patches of unit ${unit}`]];
  if (layer.units[unit].nine) files.push([layer.units[unit].nine, `the strongest patches of unit ${unit} in photographs`]);
  return files.map(([file, alt]) => picture(file, alt));
}

const ownOfBoth = (n, i, j) => picture(`${padded(n)}-own-${i}-${j}.webp`, `the painting’s patches where units ${i} and ${j} are both active`);

function units(n, layer, title, explanation, listed) {
  return section(title, explanation, listed.map((unit) => {
    const info = layer.units[unit], lift = info.lift === null ? "not active in photographs" : `lift ${number(info.lift)}`;
    const link = make("a", { href: address(n, unit) }, where(`${padded(n)}-where-${unit}-${unit}.webp`, `where unit ${unit} is active`));
    link.append(make("div", { class: "nines" }, ...nines(n, unit, layer)), make("strong", {}, `${unit} ${info.name}`));
    link.append(make("span", { class: "note" }, `G/M ${number(info.value)}: ${percent(info.share)} of the layer, ${lift}`));
    return make("li", {}, link);
  }));
}

function pairs(n, layer, title, explanation, list) {
  return section(title, explanation, layer.lists[list].map(([i, j]) => {
    const info = layer.pairs[`${i}&${j}`];
    const link = make("a", { href: address(n, i, j) }, where(`${padded(n)}-where-${i}-${j}.webp`, `where units ${i} and ${j} are active together`));
    link.append(make("div", { class: "nines" }, ownOfBoth(n, i, j), ...nines(n, i, layer).slice(0, 1), ...nines(n, j, layer).slice(0, 1)));
    link.append(make("strong", {}, `${i} ${layer.units[i].name}`), make("strong", {}, `${j} ${layer.units[j].name}`));
    link.append(make("span", { class: "note" }, `correlation ${info.correlation.toFixed(2)}, by chance at most ±${info.chance.toFixed(2)}; G/M ${number(info.value)}`));
    return make("li", {}, link);
  }));
}

function directions(n, layer) {
  const explanation = "The leading eigenvectors of the Gram matrix: mixtures of units that vary together. The first is common to the whole painting.";
  return section("Style directions", explanation, layer.directions.map((direction, k) => {
    const card = make("div", { class: "card" }, where(`${padded(n)}-direction-${k}.webp`, `where direction ${k + 1} is strong`));
    card.append(make("div", { class: "nines" }, picture(`${padded(n)}-direction-${k}-own.webp`, `the painting’s patches of direction ${k + 1}`)));
    const parts = direction.units.map(([unit, component]) => `${component < 0 ? "−" : "+"}${unit}`).join(" ");
    card.append(make("strong", {}, `Direction ${k + 1}: ${direction.name}`));
    card.append(make("span", { class: "note" }, `${percent(direction.share)} of the layer; mainly units ${parts}`));
    return make("li", {}, card);
  }));
}

// A pair, position by position

async function showPair(n, i, j) {
  const turn = ++state.turn, layer = await loadLayer(n);
  const maps = await Promise.all([loadMap(n, i), loadMap(n, j)]);
  if (turn !== state.turn) return;
  const { name } = STYLE.layers[n], both = i === j ? `unit ${i} with itself` : `units ${i} and ${j}`;
  const heading = make("h2", { tabindex: "-1" }, `${name}: ${both}`);
  const explorer = makeExplorer(layer, maps, i, j), up = make("a", { href: `#${encodeURIComponent(name)}` }, `↑ back to ${name}`);
  const blocks = [...new Set([i, j])].flatMap((unit) => figures(n, unit, layer));
  if (layer.pairs[`${i}&${j}`]) blocks.unshift(make("figure", {}, ownOfBoth(n, i, j), make("figcaption", {}, "Both: where the product is largest in this painting.")));
  $("pair").replaceChildren(make("nav", { class: "steps", "aria-label": "Way back" }, up), heading, inWords(layer, i, j), explorer, make("div", { class: "blocks" }, ...blocks));
  present("pair", heading, `${name}/${i === j ? i : `${i}&${j}`} – ${STYLE.painting}`);
}

function inWords(layer, i, j) {
  const names = [i, j].map((unit) => `${unit}, ${layer.units[unit].name}`);
  if (i === j) return make("p", { class: "lead" }, `Unit ${names[0]}. Its entry of the Gram matrix is the sum of its squared activation over all positions: how much of its texture the painting has.`);
  return make("p", { class: "lead" }, `Unit ${names[0]}; unit ${names[1]}. Their entry of the Gram matrix is the sum over all positions of the product of their activations: where one of them is 0, nothing is added.`);
}

function figures(n, unit, layer) {
  const info = layer.units[unit], own = picture(`${padded(n)}-own-${unit}.webp`, `the painting’s patches of unit ${unit}`);
  const found = [make("figure", {}, own, make("figcaption", {}, `Unit ${unit}: where it is strongest in this painting. Hatched: outside the picture.`))];
  if (info.nine) found.push(make("figure", {}, picture(info.nine, `the strongest patches of unit ${unit}`), make("figcaption", {}, `Unit ${unit}: its strongest patches in the atlas’s pictures.`)));
  return found;
}

function makeExplorer(layer, [a, b], i, j) {
  const sums = new Float64Array(a.length);
  let sum = 0, largest = 0;
  for (let k = 0; k < a.length; k++) { sum += a[k] * b[k]; sums[k] = sum; largest = Math.max(largest, a[k] * b[k]); }
  const point = { layer, a, b, i, j, sums, largest, k: strongest(a, b), smooth: false };
  const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": "the painting where the two are active; arrow keys move the position" });
  const panel = makePanel(point, go), image = new Image();
  const veil = makeVeil(point), draw = () => drawStage(canvas, image, veil, point);
  function go(k) {
    point.k = Math.min(a.length - 1, Math.max(0, k));
    draw();
    panel.update();
  }
  [canvas.width, canvas.height] = [STYLE.width, STYLE.height];
  image.onload = () => go(point.k);
  image.src = "parts/painting.webp";
  const onPoint = (event) => { panel.stop(); const [y, x] = place(event, canvas, layer.height, layer.width); go(y * layer.width + x); };
  canvas.onpointermove = (event) => { if (event.pointerType === "mouse" || event.buttons) onPoint(event); };
  canvas.onpointerdown = onPoint;
  canvas.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layer.width, ArrowDown: layer.width }[event.key];
    if (by) { event.preventDefault(); panel.stop(); go(point.k + by); }
  };
  panel.smooth.onchange = () => { point.smooth = panel.smooth.checked; draw(); };
  return make("div", { class: "explorer" }, make("div", { class: "stage" }, canvas, make("p", { class: "note" }, "Point at a position. The square is the position, the frame its receptive field. The painting is covered where the product is small.")), panel.element);
}

function strongest(a, b) {
  let best = 0;
  for (let k = 1; k < a.length; k++) if (a[k] * b[k] > a[best] * b[best]) best = k;
  return best;
}

function makeVeil({ layer, a, b }) {
  const products = Float64Array.from(a, (value, k) => value * b[k]), sorted = products.slice().sort();
  const top = sorted[Math.floor(0.99 * (sorted.length - 1))] || sorted[sorted.length - 1] || 1, veil = make("canvas");
  [veil.width, veil.height] = [layer.width, layer.height];
  const context = veil.getContext("2d"), data = context.createImageData(layer.width, layer.height);
  products.forEach((value, k) => data.data.set([240, 238, 233, 255 * 0.93 * (1 - Math.sqrt(Math.min(1, value / top)))], 4 * k));
  context.putImageData(data, 0, 0);
  return veil;
}

function drawStage(canvas, image, veil, { layer, k, smooth }) {
  const context = canvas.getContext("2d"), { width, height } = canvas, [y, x] = [Math.floor(k / layer.width), k % layer.width];
  const [across, down] = [width / layer.width, height / layer.height];
  context.clearRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(veil, 0, 0, width, height);
  frame(context, x * across, y * down, Math.max(4, across), Math.max(4, down), 2);
  frame(context, x * layer.stride - layer.padding, y * layer.stride - layer.padding, layer.size, layer.size, 1);
}

function frame(context, x, y, width, height, line) {
  for (const [color, wide] of [["#ffffff", line + 2], ["#9a3412", line]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: wide });
    context.strokeRect(x, y, width, height);
  }
}

function makePanel(point, go) {
  const { layer, a, b, i, j, sums } = point, total = sums[sums.length - 1], n = a.length;
  const values = {}, list = make("dl", { class: "sum" });
  const rows = [["k", "position k, row by row"], ["i", `unit ${i} there`, "a", `${i},k`], ["j", `unit ${j} there`, "a", `${j},k`], ["product", "their product"], ["sum", "running sum up to k"], ["total", "the sum over all positions", "G", `${i},${j}`], ["mean", `G/M, over ${number(n)} positions`]];
  for (const [key, text, letter, index] of rows) {
    values[key] = make("dd", { id: `value-${key}` });
    const named = letter ? [letter, make("sub", {}, index), `, ${text}`] : [text];
    list.append(make("dt", { class: key === "total" ? "total" : "" }, ...named), values[key]);
    if (key === "total") values[key].className = "total";
  }
  const equation = make("p", { class: "equation" }), curve = make("canvas", { role: "img", "aria-label": "the running sum over the positions" });
  const slider = make("input", { type: "range", min: "0", max: String(n - 1), "aria-label": "position k" });
  const button = make("button", { type: "button" }, "Add up"), smooth = make("input", { type: "checkbox" });
  let playing = null;
  const exact = (value) => (Math.abs(value) >= 100 ? value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) >= 1e5 ? 0 : 1 }) : String(Number(value.toPrecision(5))));
  function stop() { playing = null; button.textContent = "Add up"; }
  function play() {
    if (playing) return stop();
    const run = {}, from = point.k >= n - 1 ? 0 : point.k, begun = performance.now();
    [playing, button.textContent] = [run, "Stop"];
    const tick = (now) => {
      if (playing !== run || !curve.isConnected) return;
      const k = Math.min(n - 1, from + Math.floor((n * (now - begun)) / 1000 / SECONDS));
      go(k);
      if (k < n - 1) requestAnimationFrame(tick); else stop();
    };
    requestAnimationFrame(tick);
    return null;
  }
  function update() {
    const { k } = point, product = a[k] * b[k];
    values.k.textContent = `${(k + 1).toLocaleString("en")} of ${n.toLocaleString("en")} (row ${Math.floor(k / layer.width) + 1}, column ${(k % layer.width) + 1})`;
    values.i.textContent = exact(a[k]);
    values.j.textContent = exact(b[k]);
    values.product.textContent = exact(product);
    values.sum.textContent = `${exact(sums[k])}${total ? ` (${percent(sums[k] / total)})` : ""}`;
    values.total.textContent = exact(total);
    values.mean.textContent = exact(total / n);
    equation.textContent = `(${exact(a[k])}, ${exact(b[k])}): ${exact(a[k])} × ${exact(b[k])} = ${exact(product)}`;
    slider.value = String(k);
    drawCurve(curve, sums, k);
  }
  button.onclick = play;
  slider.oninput = () => { stop(); go(Number(slider.value)); };
  const tools = make("div", { class: "tools" }, button, make("label", {}, smooth, " smooth"));
  const explanation = make("p", { class: "note" }, "The running sum over the positions, row by row: steep where the product is large, level where it is 0.");
  return { element: make("div", { class: "panel" }, equation, list, curve, slider, tools, explanation), update, stop, smooth };
}

function drawCurve(canvas, sums, k) {
  const ratio = window.devicePixelRatio || 1, [width, height] = [Math.round((canvas.clientWidth || 400) * ratio), Math.round((canvas.clientHeight || 112) * ratio)];
  const colors = getComputedStyle(document.documentElement), total = sums[sums.length - 1] || 1, context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  const x = (at) => ((at + 1) / sums.length) * width, y = (at) => height - 3 - (sums[at] / total) * (height - 6);
  const path = (last) => {
    context.beginPath();
    context.moveTo(0, height - 3);
    for (let px = 0; px <= width; px++) {
      const at = Math.min(last, Math.floor((px / width) * (sums.length - 1)));
      context.lineTo(Math.min(px, x(last)), y(at));
    }
  };
  path(k);
  context.lineTo(x(k), height);
  context.lineTo(0, height);
  context.fillStyle = colors.getPropertyValue("--ground");
  context.fill();
  path(sums.length - 1);
  Object.assign(context, { strokeStyle: colors.getPropertyValue("--bar"), lineWidth: 2 * ratio });
  context.stroke();
  context.fillStyle = colors.getPropertyValue("--mark");
  context.beginPath();
  context.arc(x(k), y(k), 4 * ratio, 0, 7);
  context.fill();
}

// The address

const state = { turn: 0 };

function problem(error) {
  $("status").replaceChildren(make("span", { class: "problem" }, error.message));
}

function present(id, heading, title) {
  for (const each of ["layer", "pair"]) $(each).hidden = each !== id;
  document.title = title;
  if (state.moved) {
    heading.scrollIntoView();
    heading.focus({ preventScroll: true });
  }
  state.moved = true;
}

function parsed(hash) {
  let text = hash.slice(1);
  try { text = decodeURIComponent(text); } catch { /* not encoded by this page: use it as it is */ }
  const slash = text.lastIndexOf("/"), name = slash < 0 ? text : text.slice(0, slash), n = text ? STYLE.layers.findIndex((layer) => layer.name === name) : 0;
  if (n < 0) return null;
  if (slash < 0) return { n };
  const found = /^(\d{1,6})(?:&(\d{1,6}))?$/.exec(text.slice(slash + 1));
  return found && { n, i: Number(found[1]), j: Number(found[2] ?? found[1]) };
}

async function go() {
  $("status").textContent = "";
  const to = parsed(location.hash), layer = to && (await loadLayer(to.n));
  if (!to || (to.i !== undefined && !(layer.units[to.i] && layer.units[to.j]))) {
    state.turn++;
    $("layer").hidden = $("pair").hidden = true;
    throw new Error(`The page does not have ${location.hash.slice(1)}. Addresses are like ${STYLE.layers[0].name}/17&203, of listed units.`);
  }
  for (const link of $("layers").querySelectorAll("a")) {
    link.removeAttribute("aria-current");
    if (link.getAttribute("href") === `#${encodeURIComponent(STYLE.layers[to.n].name)}`) link.setAttribute("aria-current", "true");
  }
  await (to.i === undefined ? showLayer(to.n) : showPair(to.n, to.i, to.j));
}

setUp();
window.addEventListener("hashchange", () => go().catch(problem));
go().catch(problem);

// A mask painted over a picture. On the canvas it is a veil whose opacity is the mask; saved, it is white on black.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl, upload } from "./api.js";
import { attempt } from "./state.js";
import { Dialog, closeAround, withNumber } from "./controls.js";

const LONGER = 1024, VEIL = "rgb(217 72 15)", CLEAR = "rgb(217 72 15 / 0)", MAX_UNDO = 20;

function sizeOf({ width, height }) {
  const scale = Math.min(1, LONGER / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });
const copyOf = (canvas) => contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height);

function stamp(canvas, [x, y], { size, softness, erase }) {
  const context = contextOf(canvas), radius = size / 2;
  const brush = context.createRadialGradient(x, y, radius * Math.min(0.98, 1 - softness), x, y, radius); // two equal circles would paint nothing
  brush.addColorStop(0, VEIL);
  brush.addColorStop(1, CLEAR);
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.fillStyle = brush;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function stroke(canvas, from, to, brush) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]), count = Math.max(1, Math.ceil((8 * length) / brush.size));
  for (let n = 1; n <= count; n++) stamp(canvas, [0, 1].map((k) => from[k] + ((to[k] - from[k]) * n) / count), brush);
}

// Sets every pixel's opacity to from(alpha, brightness), in 0..255.
function veil(canvas, from) {
  const data = copyOf(canvas), [red, green, blue] = VEIL.match(/\d+/g), { data: all } = data;
  for (let n = 0; n < all.length; n += 4) all.set([red, green, blue, from(all[n + 3], all[n])], n);
  contextOf(canvas).putImageData(data, 0, 0);
}

// Draws a saved mask as a veil.
function draw(canvas, url) {
  const image = new Image();
  image.onload = () => {
    contextOf(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
    veil(canvas, (_, brightness) => brightness);
  };
  image.src = url;
}

// White where the veil is, black elsewhere.
function whiteOnBlack(canvas) {
  const made = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = made.getContext("2d");
  const fill = (how, color) => {
    context.globalCompositeOperation = how;
    context.fillStyle = color;
    context.fillRect(0, 0, made.width, made.height);
  };
  context.drawImage(canvas, 0, 0);
  fill("source-in", "#fff");
  fill("destination-over", "#000");
  return new Promise((resolve) => { made.toBlob(resolve, "image/png"); });
}

// Undo and redo: `past` and `future` are the numbers of states that they can restore.
function useHistory(canvas) {
  const states = useRef({ past: [], future: [] }), [, rerender] = useState(0);
  const remember = () => {
    states.current = { past: [...states.current.past, copyOf(canvas.current)].slice(-MAX_UNDO), future: [] };
    rerender((n) => n + 1);
  };
  const step = (from, to) => {
    const state = states.current[from].pop();
    if (!state) return;
    states.current[to].push(copyOf(canvas.current));
    contextOf(canvas.current).putImageData(state, 0, 0);
    rerender((n) => n + 1);
  };
  const { past, future } = states.current;
  return { remember, undo: () => step("past", "future"), redo: () => step("future", "past"), past: past.length, future: future.length };
}

// `mask` is the url of the mask to start from, or null.
export function MaskDialog({ title, picture, mask, close, saved }) {
  const canvas = useRef(null), last = useRef(null); // the last point of the stroke
  const [width, height] = sizeOf(picture), longer = Math.max(width, height), history = useHistory(canvas);
  const [at, setAt] = useState([width / 2, height / 2]), [brush, setBrush] = useState({ size: longer / 8, softness: 0.3, erase: false });
  const set = (parts) => setBrush({ ...brush, ...parts });
  useEffect(() => { if (mask) draw(canvas.current, mask); }, []);

  const placeOf = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  };
  const down = (event) => {
    canvas.current.setPointerCapture(event.pointerId);
    history.remember();
    last.current = placeOf(event);
    stamp(canvas.current, last.current, brush);
  };
  const drag = (event) => {
    const to = placeOf(event);
    setAt(to);
    if (!last.current) return;
    stroke(canvas.current, last.current, to, brush);
    last.current = to;
  };
  const up = () => { last.current = null; };
  const whole = (from) => { history.remember(); veil(canvas.current, from); };

  const within = (value, most) => Math.min(most, Math.max(0, value)), by = brush.size / 4;
  const go = (dx, dy) => setAt([within(at[0] + dx * by, width), within(at[1] + dy * by, height)]);
  const keys = {
    ArrowLeft: () => go(-1, 0), ArrowRight: () => go(1, 0), ArrowUp: () => go(0, -1), ArrowDown: () => go(0, 1),
    " ": () => { history.remember(); stamp(canvas.current, at, brush); },
  };
  const key = (event) => {
    const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const act = isUndo ? (event.shiftKey ? history.redo : history.undo) : event.target === canvas.current && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  const save = () => attempt(async () => {
    const { id } = await upload(await whiteOnBlack(canvas.current), "mask.png", true);
    saved(id);
    closeAround(canvas.current);
  });

  const share = (value, of) => `${(100 * value) / of}%`;
  const ring = { left: share(at[0], width), top: share(at[1], height), width: share(brush.size, width) };
  const easel = { aspectRatio: `${width} / ${height}`, maxWidth: `calc(60vh * ${width / height})` };
  return html`<${Dialog} title=${title} close=${close} kind="wide" unsaved=${history.past > 0}><div onKeyDown=${key}>
    <div class="easel" style=${easel}>
      <img src=${pictureUrl(picture.id)} alt="" draggable=${false} />
      <canvas ref=${canvas} width=${width} height=${height} tabindex="0" role="application"
        aria-label="The mask over ${picture.name}. Arrows move the brush, space paints, Control Z undoes."
        onPointerDown=${down} onPointerMove=${drag} onPointerUp=${up} onPointerCancel=${up} />
      <span class="ring ${brush.erase ? "erase" : ""}" style=${ring} /></div>
    <div class="tools">
      <label>Brush <input type="range" min=${longer / 100} max=${longer / 2} value=${brush.size} aria-valuetext=${share(brush.size, longer)}
        onInput=${withNumber((size) => set({ size }))} /></label>
      <label>Softness <input type="range" min="0" max="1" step="0.05" value=${brush.softness}
        onInput=${withNumber((softness) => set({ softness }))} /></label>
      <label><input type="checkbox" checked=${brush.erase} onChange=${(event) => set({ erase: event.target.checked })} /> Erase</label>
      <button disabled=${!history.past} onClick=${history.undo}>Undo</button>
      <button disabled=${!history.future} onClick=${history.redo}>Redo</button>
      <button onClick=${() => whole((alpha) => 255 - alpha)}>Invert</button><button onClick=${() => whole(() => 0)}>Clear</button>
      <button class="primary" onClick=${save}>Save the mask</button></div></div><//>`;
}

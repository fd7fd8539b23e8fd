// A mask painted over the photograph. On the canvas it is a veil whose opacity is the mask; saved, it is white on black.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl, upload } from "./api.js";
import { attempt } from "./state.js";
import { Dialog, closeAround } from "./pictures.js";

const LONGER = 1024, VEIL = "rgb(217 72 15)", CLEAR = "rgb(217 72 15 / 0)", KEPT = 20; // states that undo can go back to

function sizeOf({ width, height }) {
  const scale = Math.min(1, LONGER / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });
const copyOf = (canvas) => contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height);

function stamp(canvas, [x, y], { size, softness, erase }) {
  const context = contextOf(canvas), radius = size / 2, brush = context.createRadialGradient(x, y, radius * (1 - softness), x, y, radius);
  brush.addColorStop(0, VEIL);
  brush.addColorStop(1, softness ? CLEAR : VEIL);
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.fillStyle = brush;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function stroke(canvas, from, to, brush) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]), count = Math.max(1, Math.ceil(length / Math.max(1, brush.size / 8)));
  for (let n = 1; n <= count; n++) stamp(canvas, [0, 1].map((k) => from[k] + ((to[k] - from[k]) * n) / count), brush);
}

// Every pixel's opacity anew: from(alpha, brightness) in 0..255.
function veil(canvas, from) {
  const data = copyOf(canvas), [red, green, blue] = VEIL.match(/\d+/g), { data: all } = data;
  for (let n = 0; n < all.length; n += 4) all.set([red, green, blue, from(all[n + 3], all[n])], n);
  contextOf(canvas).putImageData(data, 0, 0);
}

// White where the veil is, black elsewhere.
function whiteOnBlack(canvas) {
  const made = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height }), context = made.getContext("2d");
  const layers = [["source-over", () => context.drawImage(canvas, 0, 0)], ["source-in", () => fill("#fff")], ["destination-over", () => fill("#000")]];
  const fill = (color) => { context.fillStyle = color; context.fillRect(0, 0, made.width, made.height); };
  for (const [how, draw] of layers) {
    context.globalCompositeOperation = how;
    draw();
  }
  return new Promise((resolve) => { made.toBlob(resolve, "image/png"); });
}

export function MaskDialog({ title, picture, mask, close, saved }) {
  const canvas = useRef(null), steps = useRef({ past: [], future: [] }), last = useRef(null), [, again] = useState(0);
  const [width, height] = sizeOf(picture), longer = Math.max(width, height);
  const [at, move] = useState([width / 2, height / 2]), [brush, setBrush] = useState({ size: longer / 8, softness: 0.3, erase: false });
  const set = (parts) => setBrush({ ...brush, ...parts });

  useEffect(() => {
    if (!mask) return;
    const image = new Image();
    image.onload = () => {
      contextOf(canvas.current).drawImage(image, 0, 0, width, height);
      veil(canvas.current, (_, brightness) => brightness);
    };
    image.src = pictureUrl(mask);
  }, []);

  const remember = () => {
    steps.current = { past: [...steps.current.past, copyOf(canvas.current)].slice(-KEPT), future: [] };
    again((n) => n + 1);
  };
  const whole = (from) => { remember(); veil(canvas.current, from); };
  const step = (from, to) => {
    if (!steps.current[from].length) return;
    steps.current[to].push(copyOf(canvas.current));
    contextOf(canvas.current).putImageData(steps.current[from].pop(), 0, 0);
    again((n) => n + 1);
  };
  const undo = () => step("past", "future"), redo = () => step("future", "past");

  const placeOf = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  };
  const down = (event) => {
    canvas.current.setPointerCapture(event.pointerId);
    remember();
    last.current = placeOf(event);
    stamp(canvas.current, last.current, brush);
  };
  const drag = (event) => {
    const to = placeOf(event);
    move(to);
    if (!last.current) return;
    stroke(canvas.current, last.current, to, brush);
    last.current = to;
  };
  const up = () => { last.current = null; };
  const by = (dx, dy) => move([Math.min(width, Math.max(0, at[0] + (dx * brush.size) / 4)), Math.min(height, Math.max(0, at[1] + (dy * brush.size) / 4))]);
  const keys = { ArrowLeft: () => by(-1, 0), ArrowRight: () => by(1, 0), ArrowUp: () => by(0, -1), ArrowDown: () => by(0, 1), " ": () => { remember(); stamp(canvas.current, at, brush); } };
  const key = (event) => {
    const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const act = isUndo ? (event.shiftKey ? redo : undo) : event.target === canvas.current && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  const save = () => attempt(async () => {
    const { id } = await upload(await whiteOnBlack(canvas.current), "mask.png", true);
    saved(id);
    closeAround(canvas.current);
  });

  const share = (value) => `${(100 * value) / longer}%`, ring = { left: `${(100 * at[0]) / width}%`, top: `${(100 * at[1]) / height}%`, width: `${(100 * brush.size) / width}%` };
  return html`<${Dialog} title=${title} close=${close} kind="wide"><div onKeyDown=${key}>
    <div class="easel" style=${{ aspectRatio: `${width} / ${height}`, maxWidth: `calc(60vh * ${width / height})` }}>
      <img src=${pictureUrl(picture.id)} alt="" draggable=${false} />
      <canvas ref=${canvas} width=${width} height=${height} tabindex="0" role="application" aria-label="The mask over ${picture.name}. Arrows move the brush, space paints, Control Z takes back."
        onPointerDown=${down} onPointerMove=${drag} onPointerUp=${up} onPointerCancel=${up} />
      <span class="ring ${brush.erase ? "erase" : ""}" style=${ring} /></div>
    <div class="tools">
      <label>Brush <input type="range" min=${longer / 100} max=${longer / 2} value=${brush.size} aria-valuetext=${share(brush.size)} onInput=${(event) => set({ size: Number(event.target.value) })} /></label>
      <label>Softness <input type="range" min="0" max="1" step="0.05" value=${brush.softness} onInput=${(event) => set({ softness: Number(event.target.value) })} /></label>
      <label><input type="checkbox" checked=${brush.erase} onChange=${(event) => set({ erase: event.target.checked })} /> Erase</label>
      <button disabled=${!steps.current.past.length} onClick=${undo}>Undo</button><button disabled=${!steps.current.future.length} onClick=${redo}>Redo</button>
      <button onClick=${() => whole((alpha) => 255 - alpha)}>Invert</button><button onClick=${() => whole(() => 0)}>Clear</button>
      <button class="primary" onClick=${save}>Save the mask</button></div></div><//>`;
}

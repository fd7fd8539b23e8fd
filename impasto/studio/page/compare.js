// A zoomable picture, alone or compared with another: by a slider, side by side, or by switching.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Select, withNumber } from "./controls.js";

const MODES = { alone: "Alone", slider: "Slider", beside: "Side by side", hover: "Hover or hold" };
const FIT = { scale: 1, x: 0, y: 0 }, MAX_SCALE = 40, STEP = 1.25, PAN = 60;

// The scale and the offset of the picture; `box` returns the view's rectangle on the screen.
function useZoom(box, id) {
  const [place, setPlace] = useState(FIT);
  useEffect(() => { setPlace(FIT); }, [id]);
  // The point (px, py), by default the centre, stays in place.
  const zoom = (factor, px, py) => setPlace(({ scale, x, y }) => {
    const { left, top, width, height } = box(), next = Math.min(MAX_SCALE, Math.max(1, scale * factor)), k = next / scale;
    if (next === 1) return FIT;
    const dx = px === undefined ? 0 : px - left - width / 2, dy = py === undefined ? 0 : py - top - height / 2;
    return { scale: next, x: dx - (dx - x) * k, y: dy - (dy - y) * k };
  });
  const pan = (dx, dy) => setPlace(({ scale, x, y }) => (scale === 1 ? FIT : { scale, x: x + dx, y: y + dy }));
  const oneToOne = (natural) => {
    const { width, height } = box(), fitted = Math.min(width / natural.width, height / natural.height);
    setPlace(({ x, y }) => ({ scale: 1 / fitted, x, y }));
  };
  return { place, zoom, pan, oneToOne, fit: () => setPlace(FIT) };
}

// Wheel, drag and pinch. Hovering or holding calls setHeld(true), which shows the other picture.
function usePointers({ place, zoom, pan, fit }, setHeld) {
  const down = useRef(new Map()); // pointer -> its last position
  const drag = (event) => {
    const before = down.current.get(event.pointerId), to = [event.clientX, event.clientY];
    if (!before) return;
    const still = [...down.current].find(([id]) => id !== event.pointerId)?.[1], away = (point) => Math.hypot(point[0] - still[0], point[1] - still[1]);
    if (still) zoom(away(to) / away(before), ...still);
    else pan(to[0] - before[0], to[1] - before[1]);
    down.current.set(event.pointerId, to);
  };
  const up = (event) => {
    down.current.delete(event.pointerId);
    if (event.pointerType !== "mouse") setHeld(false);
  };
  return {
    onWheel: (event) => {
      if (event.deltaY > 0 && place.scale === 1) return; // already fitted: let the page scroll
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    },
    onPointerDown: (event) => {
      if (event.target.type === "range") return;
      down.current.set(event.pointerId, [event.clientX, event.clientY]);
      event.currentTarget.setPointerCapture(event.pointerId);
      if (event.pointerType !== "mouse") setHeld(true);
    },
    onPointerMove: drag, onPointerUp: up, onPointerCancel: up, onDblClick: fit,
    onPointerEnter: (event) => event.pointerType === "mouse" && setHeld(true),
    onPointerLeave: (event) => event.pointerType === "mouse" && setHeld(false),
  };
}

// `others` are [{name, url}]; when `id` changes, the zoom is reset.
export function Compare({ id, name, url, others }) {
  const [mode, setMode] = useState("alone"), [chosen, setChosen] = useState(null), [at, setAt] = useState(50), [held, setHeld] = useState(false);
  const views = useRef(null), [natural, setNatural] = useState(null);
  const zooming = useZoom(() => views.current.firstElementChild.getBoundingClientRect(), id), { place, zoom, pan, fit } = zooming;
  const oneToOne = () => natural && zooming.oneToOne(natural), pointers = usePointers(zooming, setHeld);
  const other = others.find((entry) => entry.url === chosen) ?? others[0], now = other ? mode : "alone";

  const keys = {
    "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit, 1: oneToOne, x: () => setHeld(true),
    ArrowLeft: () => pan(PAN, 0), ArrowRight: () => pan(-PAN, 0), ArrowUp: () => pan(0, PAN), ArrowDown: () => pan(0, -PAN),
  };
  const key = (event) => {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  };

  const look = { transform: `translate(${place.x}px, ${place.y}px) scale(${place.scale})` };
  const layer = (picture, options) => html`<div class="layer" style=${options?.clip}>
    <img src=${picture.url} alt=${picture.name} draggable=${false} style=${look} onLoad=${options?.loaded} /></div>`;
  const loaded = ({ target }) => setNatural({ width: target.naturalWidth, height: target.naturalHeight });
  const edge = `calc(14px + (100% - 28px) * ${at / 100})`; // half the slider's handle on either side
  const wide = natural && natural.width * (now === "beside" ? 2 : 1); // shown at most twice as large as it is
  const shape = natural && { aspectRatio: `${wide} / ${natural.height}`, maxWidth: `${2 * wide}px`, maxHeight: `min(64vh, 48rem, ${2 * natural.height}px)` };
  return html`<div class="compare">
    <div class="views ${place.scale > 1 ? "zoomed" : ""}" ref=${views} style=${shape} tabindex="0" role="group"
      onKeyDown=${key} onKeyUp=${() => setHeld(false)} onBlur=${() => setHeld(false)}
      aria-label="${name}. Keys: plus and minus zoom, 0 fits, 1 shows true pixels, arrows move, hold x to show the other.">
      <div class="view" ...${pointers}>
        ${layer({ name, url }, { loaded })}
        ${now === "hover" && held && layer(other)}
        ${now === "slider" && html`${layer(other, { clip: { clipPath: `inset(0 0 0 ${edge})` } })}
          <input class="split" type="range" min="0" max="100" step="0.5" value=${at} aria-label="Position of the divider"
            onInput=${withNumber(setAt)} />
          <div class="divider" style=${{ left: edge }} /><span class="tag right">${other.name}</span>`}
        ${now !== "alone" && html`<span class="tag">${now === "hover" && held ? other.name : name}</span>`}
      </div>
      ${now === "beside" && html`<div class="view" ...${pointers}>${layer(other)}<span class="tag">${other.name}</span></div>`}
    </div>
    <div class="tools">
      ${other && html`<fieldset class="modes"><legend class="unseen">Comparison</legend>${Object.entries(MODES).map(([value, text]) => html`
        <label key=${value}><input type="radio" name="compare" checked=${now === value} onChange=${() => setMode(value)} />${text}</label>`)}</fieldset>`}
      ${now !== "alone" && html`<label>with
        <${Select} value=${other.url} choices=${others.map((entry) => [entry.url, entry.name])} onChange=${setChosen} /></label>`}
      ${now === "hover" && html`<button aria-pressed=${held} onClick=${() => setHeld(!held)}>Show the other</button>`}
      <span class="zooms" role="group" aria-label="Zoom">
        <button onClick=${() => zoom(1 / STEP)} aria-label="Zoom out">−</button>
        <button onClick=${() => zoom(STEP)} aria-label="Zoom in">+</button>
        <button onClick=${fit}>Fit</button>
        <button onClick=${oneToOne} title="One pixel of the picture per pixel of the screen">1:1</button></span>
    </div></div>`;
}

// A zoomable picture, alone or compared with another: by a slider, side by side, or by switching.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Select, givenNumber } from "./controls.js";

const MODES = { alone: "Alone", slider: "Slider", beside: "Side by side", hover: "Hover or hold" };
const FIT = { scale: 1, x: 0, y: 0 }, MOST = 40, STEP = 1.25, PAN = 60;

// How far one has gone in, and where; `box` tells the view's place on the screen.
function useZoom(box, id) {
  const [place, move] = useState(FIT);
  useEffect(() => { move(FIT); }, [id]);
  // What is under the point, or else in the middle, stays where it is.
  const zoom = (factor, px, py) => move(({ scale, x, y }) => {
    const { left, top, width, height } = box(), next = Math.min(MOST, Math.max(1, scale * factor)), k = next / scale;
    if (next === 1) return FIT;
    const dx = px === undefined ? 0 : px - left - width / 2, dy = py === undefined ? 0 : py - top - height / 2;
    return { scale: next, x: dx - (dx - x) * k, y: dy - (dy - y) * k };
  });
  const pan = (dx, dy) => move(({ scale, x, y }) => (scale === 1 ? FIT : { scale, x: x + dx, y: y + dy }));
  const oneToOne = (natural) => {
    const { width, height } = box(), fitted = Math.min(width / natural.width, height / natural.height);
    move(({ x, y }) => ({ scale: 1 / fitted, x, y }));
  };
  return { place, zoom, pan, oneToOne, fit: () => move(FIT) };
}

// Wheel, drag and pinch. `hold` is told whether the other picture is asked for by hovering or holding.
function usePointers({ place, zoom, pan, fit }, hold) {
  const down = useRef(new Map()); // pointer -> where it was last
  const drag = (event) => {
    const before = down.current.get(event.pointerId), to = [event.clientX, event.clientY];
    if (!before) return;
    const still = [...down.current].find(([id]) => id !== event.pointerId)?.[1], away = (it) => Math.hypot(it[0] - still[0], it[1] - still[1]);
    if (still) zoom(away(to) / away(before), ...still);
    else pan(to[0] - before[0], to[1] - before[1]);
    down.current.set(event.pointerId, to);
  };
  const up = (event) => {
    down.current.delete(event.pointerId);
    if (event.pointerType !== "mouse") hold(false);
  };
  return {
    onWheel: (event) => {
      if (event.deltaY > 0 && place.scale === 1) return; // nothing to go out of: the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    },
    onPointerDown: (event) => {
      if (event.target.type === "range") return;
      down.current.set(event.pointerId, [event.clientX, event.clientY]);
      event.currentTarget.setPointerCapture(event.pointerId);
      if (event.pointerType !== "mouse") hold(true);
    },
    onPointerMove: drag, onPointerUp: up, onPointerCancel: up, onDblClick: fit,
    onPointerEnter: (event) => event.pointerType === "mouse" && hold(true),
    onPointerLeave: (event) => event.pointerType === "mouse" && hold(false),
  };
}

// `others` are [{name, url}]; `id` tells when it is another picture that is looked at.
export function Compare({ id, name, url, others }) {
  const [mode, setMode] = useState("alone"), [chosen, choose] = useState(null), [at, split] = useState(50), [held, hold] = useState(false);
  const views = useRef(null), [natural, setNatural] = useState(null);
  const zooming = useZoom(() => views.current.firstElementChild.getBoundingClientRect(), id), { place, zoom, pan, fit } = zooming;
  const oneToOne = () => natural && zooming.oneToOne(natural), pointers = usePointers(zooming, hold);
  const other = others.find((it) => it.url === chosen) ?? others[0], now = other ? mode : "alone";

  const keys = {
    "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit, 1: oneToOne, x: () => hold(true),
    ArrowLeft: () => pan(PAN, 0), ArrowRight: () => pan(-PAN, 0), ArrowUp: () => pan(0, PAN), ArrowDown: () => pan(0, -PAN),
  };
  const key = (event) => {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  };

  const look = { transform: `translate(${place.x}px, ${place.y}px) scale(${place.scale})` };
  const layer = (it, more) => html`<div class="layer" style=${more?.clip}>
    <img src=${it.url} alt=${it.name} draggable=${false} style=${look} onLoad=${more?.loaded} /></div>`;
  const loaded = ({ target }) => setNatural({ width: target.naturalWidth, height: target.naturalHeight });
  const edge = `calc(14px + (100% - 28px) * ${at / 100})`; // half the slider's handle on either side
  const shape = natural && { aspectRatio: `${natural.width * (now === "beside" ? 2 : 1)} / ${natural.height}` };
  return html`<div class="compare">
    <div class="views ${place.scale > 1 ? "zoomed" : ""}" ref=${views} style=${shape} tabindex="0" role="group"
      onKeyDown=${key} onKeyUp=${() => hold(false)} onBlur=${() => hold(false)}
      aria-label="${name}. Keys: plus and minus zoom, 0 fits, 1 shows true pixels, arrows move, hold x to show the other.">
      <div class="view" ...${pointers}>
        ${layer({ name, url }, { loaded })}
        ${now === "hover" && held && layer(other)}
        ${now === "slider" && html`${layer(other, { clip: { clipPath: `inset(0 0 0 ${edge})` } })}
          <input class="split" type="range" min="0" max="100" step="0.5" value=${at} aria-label="Position of the divider"
            onInput=${givenNumber(split)} />
          <div class="divider" style=${{ left: edge }} /><span class="tag right">${other.name}</span>`}
        ${now !== "alone" && html`<span class="tag">${now === "hover" && held ? other.name : name}</span>`}
      </div>
      ${now === "beside" && html`<div class="view" ...${pointers}>${layer(other)}<span class="tag">${other.name}</span></div>`}
    </div>
    <div class="tools">
      ${other && html`<fieldset class="modes"><legend class="unseen">Comparison</legend>${Object.entries(MODES).map(([it, text]) => html`
        <label key=${it}><input type="radio" name="compare" checked=${now === it} onChange=${() => setMode(it)} />${text}</label>`)}</fieldset>`}
      ${now !== "alone" && html`<label>with
        <${Select} value=${other.url} choices=${others.map((it) => [it.url, it.name])} put=${choose} /></label>`}
      ${now === "hover" && html`<button aria-pressed=${held} onClick=${() => hold(!held)}>Show the other</button>`}
      <span class="zooms" role="group" aria-label="Zoom">
        <button onClick=${() => zoom(1 / STEP)} aria-label="Zoom out">−</button>
        <button onClick=${() => zoom(STEP)} aria-label="Zoom in">+</button>
        <button onClick=${fit}>Fit</button>
        <button onClick=${oneToOne} title="One pixel of the picture per pixel of the screen">1:1</button></span>
    </div></div>`;
}

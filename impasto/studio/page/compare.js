// A picture to look at closely, alone or with another: by a slider, side by side, or one in place of the other.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

const MODES = { alone: "Alone", slider: "Slider", beside: "Side by side", hover: "Hover or hold" };
const FIT = { scale: 1, x: 0, y: 0 }, MOST = 40;

export function Compare({ id, name, url, others }) {
  const [mode, setMode] = useState("alone"), [chosen, choose] = useState(null), [at, split] = useState(50), [held, hold] = useState(false);
  const views = useRef(null), [natural, setNatural] = useState(null), [place, move] = useState(FIT), pointers = useRef(new Map());
  const other = others.find((it) => it.url === chosen) ?? others[0], now = other ? mode : "alone", second = now === "hover" ? held : now === "slider";
  const view = () => views.current.firstElementChild.getBoundingClientRect();

  // What is under the point stays under it.
  const zoom = (factor, px, py) => move(({ scale, x, y }) => {
    const { left, top, width, height } = view(), next = Math.min(MOST, Math.max(1, scale * factor)), k = next / scale;
    if (next === 1) return FIT;
    const dx = (px ?? left + width / 2) - left - width / 2, dy = (py ?? top + height / 2) - top - height / 2;
    return { scale: next, x: dx - (dx - x) * k, y: dy - (dy - y) * k };
  });
  const pan = (dx, dy) => move(({ scale, x, y }) => (scale === 1 ? FIT : { scale, x: x + dx, y: y + dy }));
  const fitted = () => Math.min(view().width / natural.width, view().height / natural.height); // screen pixels a pixel of the picture at scale 1
  const oneToOne = () => move(({ x, y }) => ({ scale: 1 / fitted(), x, y }));

  const wheel = (event) => {
    if (event.deltaY > 0 && place.scale === 1) return; // nothing to go out of: the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
  };
  const down = (event) => {
    if (event.target.type === "range") return;
    pointers.current.set(event.pointerId, [event.clientX, event.clientY]);
    event.currentTarget.setPointerCapture(event.pointerId);
    if (event.pointerType !== "mouse") hold(true);
  };
  const drag = (event) => {
    const before = pointers.current.get(event.pointerId);
    if (!before) return;
    const still = [...pointers.current.entries()].find(([id]) => id !== event.pointerId)?.[1], to = [event.clientX, event.clientY];
    if (still) zoom(Math.hypot(to[0] - still[0], to[1] - still[1]) / Math.hypot(before[0] - still[0], before[1] - still[1]), ...still);
    else pan(to[0] - before[0], to[1] - before[1]);
    pointers.current.set(event.pointerId, to);
  };
  const up = (event) => {
    pointers.current.delete(event.pointerId);
    if (event.pointerType !== "mouse") hold(false);
  };
  const keys = { "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => move(FIT), 1: oneToOne, ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60), x: () => hold(true) };
  const key = (event) => {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  };

  const look = { transform: `translate(${place.x}px, ${place.y}px) scale(${place.scale})` }, edge = `calc(14px + (100% - 28px) * ${at / 100})`;
  const picture = (it, clip) => html`<div class="layer" style=${clip}><img src=${it.url} alt=${it.name} draggable=${false} style=${look} /></div>`;
  const main = html`<div class="layer"><img src=${url} alt=${name} draggable=${false} style=${look} onLoad=${({ target }) => setNatural({ width: target.naturalWidth, height: target.naturalHeight })} /></div>`;
  const handlers = {
    onWheel: wheel, onPointerDown: down, onPointerMove: drag, onPointerUp: up, onPointerCancel: up, onDblClick: () => move(FIT),
    onPointerEnter: (event) => event.pointerType === "mouse" && hold(true), onPointerLeave: (event) => event.pointerType === "mouse" && hold(false),
  };
  useEffect(() => { move(FIT); }, [id]);

  return html`<div class="compare">
    <div class="views ${place.scale > 1 ? "zoomed" : ""}" ref=${views} style=${natural && { aspectRatio: `${natural.width * (now === "beside" ? 2 : 1)} / ${natural.height}` }} tabindex="0" role="group" onKeyDown=${key} onKeyUp=${() => hold(false)} onBlur=${() => hold(false)}
      aria-label="${name}. Keys: plus and minus zoom, 0 fits, 1 shows true pixels, arrows move, x shows the other while held.">
      <div class="view" ...${handlers}>${main}
        ${second && picture(other, now === "slider" ? { clipPath: `inset(0 0 0 ${edge})` } : {})}
        ${now === "slider" && html`<input class="split" type="range" min="0" max="100" step="0.5" value=${at} aria-label="Where the two meet" onInput=${(event) => split(Number(event.target.value))} /><div class="divider" style=${{ left: edge }} />`}
        ${now !== "alone" && html`<span class="tag">${now === "hover" && held ? other.name : name}</span>`}${now === "slider" && html`<span class="tag right">${other.name}</span>`}</div>
      ${now === "beside" && html`<div class="view" ...${handlers}>${picture(other)}<span class="tag">${other.name}</span></div>`}
    </div>
    <div class="tools">
      ${others.length > 0 && html`<fieldset class="modes"><legend class="unseen">How to compare</legend>${Object.entries(MODES).map(([it, text]) => html`
        <label key=${it}><input type="radio" name="compare" checked=${now === it} onChange=${() => setMode(it)} />${text}</label>`)}</fieldset>
      ${now !== "alone" && html`<label>with <select value=${other.url} onChange=${(event) => choose(event.target.value)}>${others.map((it) => html`<option key=${it.url} value=${it.url}>${it.name}</option>`)}</select></label>`}`}
      ${now === "hover" && html`<button aria-pressed=${held} onClick=${() => hold(!held)}>Show the other</button>`}
      <span class="zooms" role="group" aria-label="Zoom"><button onClick=${() => zoom(0.8)} aria-label="Zoom out">−</button><button onClick=${() => zoom(1.25)} aria-label="Zoom in">+</button>
        <button onClick=${() => move(FIT)}>Fit</button><button onClick=${() => natural && oneToOne()} title="A pixel of the picture is a pixel of the screen">1:1</button></span>
    </div></div>`;
}

// The part of a style picture to paint with: a box whose corners are dragged, or moved with the arrow keys.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl } from "./api.js";
import { Dialog, closeAround } from "./controls.js";

const LEAST = 32; // pixels: the shortest side of a box
const CORNERS = { "Top left": [0, 1], "Top right": [2, 1], "Bottom left": [0, 3], "Bottom right": [2, 3] }; // sides of [left, top, right, bottom]
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const isBox = (crop) => /^\d+,\d+,\d+,\d+$/.test(crop);

// `crop` is "", none, auto or left,top,right,bottom in pixels of the picture; so is what saved(crop) gets.
export function CropDialog({ picture, crop, close, saved }) {
  const { name, width, height } = picture, lengths = [width, height], easel = useRef(null), held = useRef(null);
  const first = isBox(crop) ? crop.split(",").map(Number) : [0, 0, width, height], [box, setBox] = useState(first);
  const isWhole = box.join() === [0, 0, width, height].join();

  const within = (value, side) => Math.round(side < 2
    ? Math.max(0, Math.min(box[side + 2] - LEAST, value)) : Math.min(lengths[side - 2], Math.max(box[side - 2] + LEAST, value)));
  const put = (sides, place) => setBox(box.map((old, side) => (sides.includes(side) ? within(place[sides.indexOf(side)], side) : old)));
  const drag = (event) => {
    if (!held.current) return;
    const around = easel.current.getBoundingClientRect();
    put(held.current, [((event.clientX - around.left) * width) / around.width, ((event.clientY - around.top) * height) / around.height]);
  };
  const hold = (sides) => (event) => { event.target.setPointerCapture(event.pointerId); held.current = sides; };
  const key = (sides) => (event) => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    const step = (event.shiftKey ? 0.1 : 0.01) * Math.max(width, height);
    put(sides, sides.map((side, n) => box[side] + ARROWS[event.key][n] * step));
  };
  const choose = (next) => ({ target }) => { saved(next); closeAround(target); };

  const share = (side) => `${(100 * box[side]) / lengths[side % 2]}%`;
  const part = { left: share(0), top: share(1), width: `${(100 * (box[2] - box[0])) / width}%`, height: `${(100 * (box[3] - box[1])) / height}%` };
  return html`<${Dialog} title="Crop ${name}" close=${close} kind="wide" unsaved=${box.join() !== first.join()}>
    <div class="easel crop" ref=${easel} style=${{ aspectRatio: `${width} / ${height}`, maxWidth: `calc(60vh * ${width / height})` }}>
      <img src=${pictureUrl(picture.id)} alt="" draggable=${false} /><span class="shade"><span style=${part} /></span>
      ${Object.entries(CORNERS).map(([corner, sides]) => html`<button key=${corner} class="corner" style=${{ left: share(sides[0]), top: share(sides[1]) }}
        aria-label="${corner} corner, ${box[sides[0]]} across and ${box[sides[1]]} down; arrow keys move it" onKeyDown=${key(sides)}
        onPointerDown=${hold(sides)} onPointerMove=${drag} onPointerUp=${() => { held.current = null; }} onPointerCancel=${() => { held.current = null; }} />`)}
    </div>
    <p class="hint">${box[2] - box[0]} × ${box[3] - box[1]} of ${width} × ${height} pixels</p>
    <div class="tools"><button onClick=${choose("auto")}>Leave out margins and frames</button><button onClick=${choose("none")}>Use all of it</button>
      <button class="primary" onClick=${choose(isWhole ? "none" : box.join())}>Use this part</button></div><//>`;
}

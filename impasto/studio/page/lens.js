// The lens: atlases of units, pages of styles, and marks that change the style of the next painting.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, post } from "./api.js";
import { addJob, attempt, change, edit, jobOf, pictureOf, removeJob, studio, notify, useStudio } from "./state.js";
import { withMarks } from "./recipe.js";
import { JobRow, isOpen } from "./jobs.js";
import { Choose, Dialog, Select, Sure, closeAround, withValue, withNumber } from "./controls.js";
import { Picker } from "./pictures.js";

const isLens = (job) => job.kind === "style" || job.kind === "atlas";

export function Lens({ at: [kind, id] }) {
  const { jobs } = useStudio(), pages = usePages(jobs.filter((job) => isLens(job) && job.state === "finished").length);
  const page = (kind === "atlas" ? pages.atlases : pages.styles).find((entry) => entry.id === id);
  return page ? html`<${Opened} key=${id} page=${page} />` : html`<${Pages} pages=${pages} jobs=${jobs} />`;
}

function usePages(finished) {
  const [pages, setPages] = useState({ atlases: [], styles: [] });
  useEffect(() => { attempt(async () => setPages(await get("/api/lens"))); }, [finished]);
  return pages;
}

function Pages({ pages, jobs }) {
  const [reading, setReading] = useState(false), [making, setMaking] = useState(false), open = jobs.filter((job) => isLens(job) && isOpen(job)).reverse();
  const request = (options) => attempt(async () => addJob(await post("/api/jobs", { kind: "style", ...options })));
  return html`<main class="lens" tabindex="-1">
    <p>What the units of a network respond to. You can make what you find here stronger or weaker in the next painting.</p>
    <div class="buttons"><button class="primary" onClick=${() => setReading(true)}>Read a style</button>
      <button onClick=${() => setMaking(true)}>Make an atlas</button></div>
    ${open.length > 0 && html`<section><h2>Queue</h2>
      <ul class="jobs">${open.map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</ul></section>`}
    <${PageList} title="Styles" kind="style" pages=${pages.styles}
      about="Which units of a network are active in a picture, and which of them together." />
    <${PageList} title="Atlases" kind="atlas" pages=${pages.atlases}
      about="For each unit of a network, the patches of pictures that activate it most." />
    ${reading && html`<${Picker} title="Choose a picture" close=${() => setReading(false)}
      picked=${(picture) => request({ picture })} pickedJob=${(job) => request({ job: job.id })} />`}
    ${making && html`<${NewAtlas} close=${() => setMaking(false)} />`}</main>`;
}

function PageList({ title, kind, pages, about }) {
  const count = ({ units }) => Object.keys(units).length, of = (page) => [page.net, count(page) > 0 && `${count(page)} layers`].filter(Boolean).join(", ");
  return html`<section><h2>${title}</h2><p class="hint">${about}${pages.length === 0 && " None yet."}</p>
    <ul class="pages">${pages.map((page) => html`<li key=${page.id}>
      <a href="#lens/${kind}/${page.id}">${page.name || page.net}</a> <span class="note">${of(page)}</span>
      ${jobOf(page.id) && html` <${Sure} text="Delete" what=${page.name} sure="Delete page permanently?" run=${() => removeJob(page)} />`}
    </li>`)}</ul></section>`;
}

function NewAtlas({ close }) {
  const { recipe } = useStudio(), nets = recipe.fields.find((field) => field.name === "net").choices;
  const [net, setNet] = useState("alexnet"), [chosen, setChosen] = useState([]);
  const make = ({ target }) => attempt(async () => {
    addJob(await post("/api/jobs", { kind: "atlas", net, ...(chosen.length && { pictures: chosen }) }));
    closeAround(target);
  });
  return html`<${Dialog} title="Make an atlas" close=${close} kind="wide">
    <label>Network <${Select} value=${net} choices=${nets} onChange=${setNet} /></label>
    <p class="hint">Pictures: ${chosen.length ? `${chosen.length} chosen.` : "279 bundled photographs and all of the studio by default."}</p>
    <${Choose} title="Pictures" chosen=${chosen} onChange=${setChosen} />
    <button class="primary" onClick=${make}>Make the atlas</button><//>`;
}

// A page of the lens, and the marks made in it

// "conv3_1/17&203" -> {layer, i, j}, the smaller unit first; null if the page's net has no such unit.
function unitAt(address, { units }) {
  const [, layer, i, j = i] = address.match(/^\s*(\S+)\/(\d{1,6})(?:\s*&\s*(\d{1,6}))?\s*$/) ?? [];
  return layer && Math.max(i, j) < (units[layer] ?? 0) ? { layer, i: Math.min(i, j), j: Math.max(i, j) } : null;
}

// The error message for an address that is not a unit, or "".
function whyNot(text, { net, units }) {
  const layer = text.trim().split("/")[0];
  if (!text.includes("/") || unitAt(text, { units })) return "";
  return layer in units ? `${layer} has the units 0 to ${units[layer] - 1}.` : `${net} has no layer ${layer} here. It has ${Object.keys(units).join(", ")}.`;
}

const addressOf = ({ layer, i, j }) => `${layer}/${i === j ? i : `${i}&${j}`}`;

function plain(hash) {
  try { return decodeURIComponent(hash.slice(1)); } catch { return hash.slice(1); }
}

function Opened({ page }) {
  const [address, setAddress] = useState(""), at = unitAt(address, page);
  const loaded = ({ target: { contentWindow } }) => {
    const moved = () => setAddress(plain(contentWindow.location.hash));
    contentWindow.addEventListener("hashchange", moved);
    moved();
  };
  return html`<main class="opened" tabindex="-1">
    <div class="tools"><a href="#lens">Back</a><strong>${page.name || page.net}</strong><span class="at">${address || "overview"}</span>
      <button disabled=${!at} aria-describedby="mark-about" onClick=${() => addMark(page.net, at)}>Mark</button>
      <span class="hint" id="mark-about">${at ? "to change it in the next painting" : "Open a unit or a pair to mark it."}</span></div>
    <${Marks} page=${page} />
    <iframe src=${page.url} title=${page.name || page.net} onLoad=${loaded} /></main>`;
}

function addMark(net, at) {
  if (studio.marks.some((mark) => mark.net === net && addressOf(mark) === addressOf(at))) return;
  change({ marks: [...studio.marks, { net, ...at, gain: 2, weight: 1 }] });
}

function Marks({ page }) {
  const { net } = page, { marks, recipe } = useStudio(), [text, setText] = useState("");
  const own = marks.filter((mark) => mark.net === net), at = unitAt(text, page), why = whyNot(text, page);
  const update = (mark, parts) => change({ marks: marks.map((other) => (other === mark ? { ...other, ...parts } : other)) });
  const remove = (mark) => change({ marks: marks.filter((other) => other !== mark) });
  const add = () => {
    if (!at) return;
    addMark(net, at);
    setText("");
  };
  return html`<details class="marks" open=${own.length > 0}><summary>Marks (${own.length})</summary>
    <ul class="lines">${own.map((mark) => html`<li key=${addressOf(mark)}><strong>${addressOf(mark)}</strong>
      <label>gain <input type="range" min="0" max="4" step="0.1" value=${mark.gain}
        onInput=${withNumber((gain) => update(mark, { gain }))} /> ${mark.gain} ×</label>
      <label>weight <input type="number" min="0" step="any" value=${mark.weight}
        onInput=${withNumber((weight) => update(mark, { weight }))} /></label>
      <button onClick=${() => remove(mark)} aria-label="Remove the mark ${addressOf(mark)}">Remove</button></li>`)}</ul>
    <div class="buttons">
      <input type="text" aria-label="A unit or a pair, as conv3_1/17 or conv3_1/17&203" placeholder="conv3_1/17&203" value=${text}
        onInput=${withValue(setText)} onKeyDown=${(event) => event.key === "Enter" && add()} />
      <button disabled=${!at} onClick=${add}>Add</button>
      <button class="primary" disabled=${!own.length} onClick=${() => sendMarks(page, own, recipe)}>Send to Paint</button></div>
    ${why && html`<p class="problem" role="alert">${why}</p>`}
    <p class="hint">Gain: the factor by which the result gets more or less of it. Weight: how important that is; 0 ignores it.</p></details>`;
}

// Also adds the style picture of the page if the form has none yet.
function sendMarks({ id, net }, marks, recipe) {
  const { knobs, preset, styles } = studio.form, now = knobs.net ?? recipe.presets[preset].net, fits = !net || now === net;
  const styleEdit = withMarks(fits ? knobs.style_edit : {}, marks), read = pictureOf(jobOf(id)?.asked.picture);
  edit({
    knobs: { ...knobs, style_edit: styleEdit, ...(!fits && { net }) },
    ...(read && !styles.length && { styles: [{ id: read.id, weight: 1 }] }),
  });
  notify(fits ? "The marks are in the form." : `The marks are in the form, which now uses their network, ${net}.`);
  location.hash = "#paint";
}

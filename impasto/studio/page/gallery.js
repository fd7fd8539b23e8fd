// The gallery: everything painted so far, and one painting looked at closely.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, jobUrl, post } from "./api.js";
import { addJob, attempt, edit, isPicture, jobOf, paintAgain, pictureOfJob, removeJob, studio, tell, use, useStudio } from "./state.js";
import { changed, changesInWords, fromAsked, inWords, label, typed } from "./recipe.js";
import { Thumb, Warnings, comparable, jobPicture, seconds, told, when } from "./jobs.js";
import { Compare } from "./compare.js";
import { Dialog, Select, Sure, given } from "./controls.js";

const WAIT = 250; // milliseconds after the last key until it is searched
const KINDS = [["", "everything"], ["painting", "paintings"], ["grid", "sheets"]];
const go = (hash) => { location.hash = hash; };

export function Gallery({ at: [id] }) {
  const { jobs } = useStudio(), [words, search] = useState(""), [kind, choose] = useState(""), found = useFound(words, jobs.length);
  const shown = jobs.filter((it) => isPicture(it) && jobPicture(it) && (!kind || it.kind === kind) && (!found || found.has(it.id)));
  const job = jobOf(id);
  return html`<main class="gallery" tabindex="-1">
    <div class="tools">
      <label class="search">Search <input type="search" value=${words} placeholder="hokusai beta 30" onInput=${given(search)} /></label>
      <label>Show <${Select} value=${kind} choices=${KINDS} put=${choose} /></label>
      <span class="hint" role="status">${shown.length} ${shown.length === 1 ? "picture" : "pictures"}</span></div>
    ${shown.length === 0 && html`<p class="empty">${words || kind ? "No matches" : "No paintings yet"}</p>`}
    <ul class="cards large">${shown.map((it) => html`<li key=${it.id}><a class="card" href="#gallery/${it.id}"><${Thumb} job=${it} />
      <span>${it.name}</span><span class="said own">${ownSettings(it)}</span>
      <span class="said">${it.state === "finished" ? when(it.created) : told(it)}</span></a></li>`)}</ul>
    ${job && html`<${Dialog} key=${id} title=${job.name} kind="full" close=${() => go("#gallery")}><${Painting} job=${job} /><//>`}</main>`;
}

// What tells it from others of the same pictures: "gatys, Style strength 40".
function ownSettings({ asked: { preset, knobs } }) {
  return [preset === studio.recipe.default ? "" : preset, changesInWords(knobs)].filter(Boolean).join(", ");
}

// The ids of what is found; null: nothing was searched for.
function useFound(words, count) {
  const [found, put] = useState(null);
  useEffect(() => {
    if (!words.trim()) return put(null);
    const later = setTimeout(() => attempt(async () => {
      const { jobs } = await get(`/api/jobs?search=${encodeURIComponent(words)}`);
      put(new Set(jobs.map((it) => it.id)));
    }), WAIT);
    return () => clearTimeout(later);
  }, [words, count]);
  return found;
}

function Painting({ job }) {
  const url = jobPicture(job);
  return html`<div class="painting">
    ${url && html`<${Compare} id=${job.id} name=${job.kind === "grid" ? "Sheet" : "Painting"} url=${url} others=${comparable(job)} />`}
    <div class="about"><p class="hint">${when(job.created)}, ${told(job)}</p>
      <${Actions} job=${job} />
      ${job.error && html`<p class="problem">${job.error}</p>`}
      <${Warnings} job=${job} />
      <${Settings} job=${job} />
      ${job.kind === "grid" && job.result && html`<${Cells} job=${job} />`}
      ${job.result?.costs && html`<${Costs} result=${job.result} />`}</div></div>`;
}

function toForm(parts, said) {
  edit(parts);
  tell(said);
}

function Actions({ job }) {
  const useAll = () => { toForm(fromAsked(job), "All settings are in the form."); go("#paint"); };
  const from = (place) => attempt(async () => { use([await pictureOfJob(job)], place); });
  const readStyle = () => attempt(async () => { addJob(await post("/api/jobs", { kind: "style", job: job.id })); go("#lens"); });
  return html`<div class="buttons">
    <button class="primary" onClick=${useAll}>Use all settings</button>
    <a class="button" href=${jobUrl(job.id, "download")} download>Download</a>
    <button onClick=${() => { paintAgain(job); go("#paint"); }}>Paint again</button>
    ${job.kind === "painting" && job.state === "finished" && html`
      <button onClick=${readStyle} title="Make a page about its style: units, and which of them act together">Read its style</button>
      <button onClick=${() => from("content")}>Use as photograph</button><button onClick=${() => from("styles")}>Use as style</button>`}
    ${job.state !== "running" && html`<${Sure} text="Delete" what=${job.name} sure="Delete it permanently?" run=${() => removeJob(job)} />`}</div>`;
}

const ELSEWHERE = ["regions", "protect", "changes"]; // in a recipe, but no knobs of the form

// The settings that differ from the preset's, and all of them when asked.
function Settings({ job }) {
  const { recipe, form } = useStudio(), [all, showAll] = useState(false);
  const whole = job.result?.recipe ?? { preset: job.asked.preset ?? recipe.default, ...job.asked.knobs };
  const axes = [job.asked.rows?.[0], job.asked.columns?.[0]]; // a sheet's own differ from cell to cell
  const differ = [...Object.keys(changed(whole, recipe)).filter((it) => !axes.includes(it)), ...ELSEWHERE.filter((it) => typed(whole[it]) !== "")];
  const names = ["preset", ...(all ? Object.keys(whole).filter((it) => it !== "preset") : differ)];
  const before = fromAsked(job);
  const own = {
    preset: () => ({ preset: whole.preset }), regions: () => ({ regions: before.regions }), protect: () => ({ protect: before.protect }),
    changes: () => ({ changes: before.changes }),
    style_weights: () => ({ styles: form.styles.map((it, n) => ({ ...it, weight: whole.style_weights[n] ?? 1 })) }),
  };
  const one = (name) => toForm(own[name]?.() ?? { knobs: { ...form.knobs, [name]: whole[name] } }, `${label(name)} is in the form.`);
  return html`<table><caption>Settings</caption><tbody>${names.map((name) => html`
      <tr key=${name} class=${differ.includes(name) ? "changed" : ""}>
        <th scope="row" title=${name}>${label(name)}</th><td>${inWords(whole[name])}</td>
        <td><button onClick=${() => one(name)} aria-label="Use ${label(name)} in the form">Use</button></td>
      </tr>`)}</tbody></table>
    <button onClick=${() => showAll(!all)} aria-expanded=${all}>${all ? "Only changes from the preset" : "All settings"}</button>`;
}

function Cells({ job }) {
  const { recipe } = useStudio(), { rows, columns, cells } = job.result;
  const useCell = ({ row, column, recipe: whole }) => {
    const brought = { [job.asked.rows[0]]: job.asked.rows[row], [job.asked.columns[0]]: job.asked.columns[column] };
    toForm({
      ...fromAsked(job), preset: whole.preset, knobs: changed(whole, recipe),
      ...(brought.contents && { content: brought.contents }), ...(brought.styles && { styles: [{ id: brought.styles, weight: 1 }] }),
    }, "The settings of this painting are in the form.");
    go("#paint");
  };
  return html`<table><caption>Paintings</caption><tbody>${cells.map((it) => html`<tr key="${it.row},${it.column}">
    <th scope="row">${[rows[it.row - 1], columns[it.column - 1]].filter(Boolean).join(", ")}</th><td>${it.error}</td>
    <td>${it.recipe && html`<button onClick=${() => useCell(it)}>Use</button>`}</td></tr>`)}</tbody></table>`;
}

function Costs({ result: { width, height, seconds: took, costs, peak_memory_mb: memory } }) {
  const rows = { total: costs.total, content: costs.content, style: costs.style, ...costs.style_layers };
  return html`<p class="hint">${width} × ${height} pixels, ${seconds(took)}${memory ? `, up to ${Math.round(memory)} MB` : ""}</p>
    <table><caption title="How different the result still is from the photograph (content) and from the style">Final costs</caption>
      <tbody>${Object.entries(rows).map(([name, value]) => html`
        <tr key=${name}><th scope="row">${name}</th><td class="number">${typed(value)}</td></tr>`)}</tbody></table>`;
}

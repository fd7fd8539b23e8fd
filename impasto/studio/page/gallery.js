// The gallery: all results, and a view of one of them.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, jobUrl, post } from "./api.js";
import { addJob, attempt, change, edit, isPainting, isPicture, jobOf, paintAgain, pictureOfJob, removeJob, studio, notify, use, useStudio } from "./state.js";
import { changed, changesInWords, formOfJob, inWords, label as labelOf, typed } from "./recipe.js";
import { Thumb, Warnings, comparable, jobPicture, seconds, statusOf, when } from "./jobs.js";
import { Compare } from "./compare.js";
import { Downloads } from "./paint.js";
import { Dialog, Select, Sure, withValue } from "./controls.js";

const WAIT = 250; // milliseconds between the last key and the search
const KINDS = [
  ["", "what is finished"], ["starred", "with a star"], ["painting", "paintings"], ["instant", "instant pictures"], ["grid", "sheets"], ["open", "what did not finish"],
];
const go = (hash) => { location.hash = hash; };

function isOfKind(job, kind) {
  if (kind === "open") return job.state !== "finished";
  return job.state === "finished" && (!kind || (kind === "starred" ? job.starred : job.kind === kind));
}

export function Gallery({ at: [id] }) {
  const { jobs } = useStudio(), [words, setWords] = useState(""), [kind, setKind] = useState(""), found = useFound(words, jobs.map((job) => job.name).join());
  const [marked, setMarked] = useState(null); // the ids of the selected pictures; null while none are to be selected
  const shown = jobs.filter((entry) => isPicture(entry) && jobPicture(entry) && isOfKind(entry, kind) && (!found || found.has(entry.id)));
  const job = jobOf(id), flip = (entry) => setMarked(marked.includes(entry.id) ? marked.filter((other) => other !== entry.id) : [...marked, entry.id]);
  return html`<main class="gallery" tabindex="-1">
    <div class="tools">
      <label class="search">Search <input type="search" value=${words} placeholder="hokusai beta 30" onInput=${withValue(setWords)} /></label>
      <label>Show <${Select} value=${kind} choices=${KINDS} onChange=${setKind} /></label>
      <button aria-pressed=${marked !== null} onClick=${() => setMarked(marked ? null : [])}>Select</button>
      ${marked && html`<${Selection} shown=${shown} marked=${marked} setMarked=${setMarked} />`}
      <span class="hint" role="status">${shown.length} ${shown.length === 1 ? "picture" : "pictures"}</span></div>
    ${shown.length === 0 && html`<${Nothing} filtered=${words || kind} />`}
    <ul class="cards large">${shown.map((entry) => html`<li key=${entry.id}>
      ${marked ? html`<button class="card" aria-pressed=${marked.includes(entry.id)} onClick=${() => flip(entry)}><${Card} entry=${entry} /></button>`
        : html`<a class="card" href="#gallery/${entry.id}"><${Card} entry=${entry} /></a>`}
      ${!marked && html`<${Star} job=${entry} />`}</li>`)}</ul>
    ${job && html`<${Dialog} key=${id} title=${job.name} kind="full" close=${() => go("#gallery")}><${Painting} job=${job} /><//>`}</main>`;
}

function Nothing({ filtered }) {
  return html`<div class="empty"><p>${filtered ? "No matches." : "What you paint comes here, with all of its settings."}</p>
    ${!filtered && html`<p><a href="#paint">Paint something</a></p>`}</div>`;
}

function Card({ entry }) {
  return html`<${Thumb} job=${entry} /><span>${entry.name}</span><span class="note own">${ownSettings(entry)}</span>
    <span class="note">${entry.state === "finished" ? when(entry.created) : statusOf(entry)}</span>`;
}

const label = (job, parts) => attempt(async () => addJob(await post(jobUrl(job.id, "label"), parts)));

function Star({ job }) {
  return html`<button class="star" aria-pressed=${job.starred} aria-label="Star: ${job.name}" title=${job.starred ? "Take the star away" : "Give it a star"}
    onClick=${() => label(job, { starred: !job.starred })}>${job.starred ? "★" : "☆"}</button>`;
}

// What can be done with the selected pictures.
function Selection({ shown, marked, setMarked }) {
  const chosen = shown.filter(({ id }) => marked.includes(id)), whole = chosen.filter((job) => job.picture), what = `${chosen.length} ${chosen.length === 1 ? "picture" : "pictures"}`;
  const erase = () => { chosen.filter(({ state }) => state !== "running").forEach(removeJob); setMarked([]); };
  return html`<button onClick=${() => setMarked(shown.map(({ id }) => id))}>All</button>
    ${whole.length > 0 && html`<a class="button" href="/api/zip?${whole.map(({ id }) => `id=${id}`).join("&")}" download="impasto.zip">
      Download ${whole.length} ${whole.length === 1 ? "picture" : "pictures"}</a>`}
    ${chosen.length > 0 && html`<${Sure} text="Delete" what=${what} sure="Delete ${what} permanently?" run=${erase} />`}`;
}

// The settings that differ from the defaults: "gatys, Style strength 40".
function ownSettings({ asked: { preset, knobs } }) {
  return [preset === studio.recipe.default ? "" : preset, changesInWords(knobs)].filter(Boolean).join(", ");
}

// The ids of the jobs that match; null without a search.
function useFound(words, names) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    if (!words.trim()) return setFound(null);
    const later = setTimeout(() => attempt(async () => {
      const { jobs } = await get(`/api/jobs?search=${encodeURIComponent(words)}`);
      setFound(new Set(jobs.map((job) => job.id)));
    }), WAIT);
    return () => clearTimeout(later);
  }, [words, names]);
  return found;
}

function Painting({ job }) {
  const url = jobPicture(job);
  return html`<div class="painting">
    ${url && html`<${Compare} id=${job.id} name=${job.kind === "grid" ? "Sheet" : "Painting"} url=${url} others=${comparable(job)} />`}
    <div class="about"><p class="hint">${when(job.created)}, ${statusOf(job)}</p>
      <label class="search">Name <input type="text" maxlength="200" key=${job.name} defaultValue=${job.name} onChange=${({ target }) => target.value.trim() && label(job, { name: target.value.trim() })} /></label>
      <${Actions} job=${job} />
      ${job.error && html`<p class="problem">${job.error}</p>`}
      <${Warnings} job=${job} />
      <${Settings} job=${job} />
      ${job.kind === "grid" && job.result && html`<${Cells} job=${job} />`}
      ${job.result?.costs?.total != null && html`<${Costs} result=${job.result} />`}</div></div>`;
}

function toForm(parts, message) {
  edit(parts);
  notify(message);
}

function Actions({ job }) {
  const useAll = () => { toForm(formOfJob(job), "All settings are in the form."); change({ shown: job.id }); go("#paint"); };
  const from = (place) => attempt(async () => { use([await pictureOfJob(job)], place); });
  const readStyle = () => attempt(async () => { addJob(await post("/api/jobs", { kind: "style", job: job.id })); go("#lens"); });
  return html`<div class="buttons">
    ${job.state === "finished" && html`<${Downloads} job=${job} />`}
    <button onClick=${useAll}>Use all settings</button><${Star} job=${job} />
    <button onClick=${() => { paintAgain(job); go("#paint"); }}>Paint again</button>
    ${isPainting(job) && job.state === "finished" && html`
      <button onClick=${readStyle} title="Make a page about its style: units, and which of them act together">Read its style</button>
      <button onClick=${() => from("content")}>Use as photograph</button><button onClick=${() => from("styles")}>Use as style</button>`}
    ${job.state !== "running" && html`<${Sure} text="Delete" what=${job.name} sure="Delete it permanently?" run=${() => removeJob(job)} />`}</div>`;
}

const ELSEWHERE = ["regions", "protect", "changes"]; // in a recipe, but not knobs in the form

// The settings that differ from the preset's, or all of them.
function Settings({ job }) {
  const { recipe, form } = useStudio(), [all, showAll] = useState(false);
  const whole = job.result?.recipe ?? { preset: job.asked.preset ?? recipe.default, ...job.asked.knobs };
  const axes = [job.asked.rows?.[0], job.asked.columns?.[0]]; // on a sheet these differ from cell to cell
  const differ = [...Object.keys(changed(whole, recipe)).filter((name) => !axes.includes(name)), ...ELSEWHERE.filter((name) => typed(whole[name]) !== "")];
  const names = ["preset", ...(all ? Object.keys(whole).filter((name) => name !== "preset") : differ)];
  const before = formOfJob(job);
  const own = {
    preset: () => ({ preset: whole.preset }), regions: () => ({ regions: before.regions }), protect: () => ({ protect: before.protect }),
    changes: () => ({ changes: before.changes }),
    style_weights: () => ({ styles: form.styles.map((style, n) => ({ ...style, weight: whole.style_weights[n] ?? 1 })) }),
  };
  const one = (name) => toForm(own[name]?.() ?? { knobs: { ...form.knobs, [name]: whole[name] } }, `${labelOf(name)} is in the form.`);
  return html`<table><caption>Settings</caption><tbody>${names.map((name) => html`
      <tr key=${name} class=${differ.includes(name) ? "changed" : ""}>
        <th scope="row" title=${name}>${labelOf(name)}</th><td>${inWords(whole[name])}</td>
        <td><button onClick=${() => one(name)} aria-label="Use ${labelOf(name)} in the form">Use</button></td>
      </tr>`)}</tbody></table>
    <button onClick=${() => showAll(!all)} aria-expanded=${all}>${all ? "Only changes from the preset" : "All settings"}</button>`;
}

function Cells({ job }) {
  const { recipe } = useStudio(), { rows, columns, cells } = job.result;
  const useCell = ({ row, column, recipe: whole }) => {
    const fromAxes = { [job.asked.rows[0]]: job.asked.rows[row], [job.asked.columns[0]]: job.asked.columns[column] };
    toForm({
      ...formOfJob(job), preset: whole.preset, knobs: changed(whole, recipe),
      ...(fromAxes.contents && { content: fromAxes.contents }), ...(fromAxes.styles && { styles: [{ id: fromAxes.styles, weight: 1 }] }),
    }, "The settings of this painting are in the form.");
    go("#paint");
  };
  return html`<table><caption>Paintings</caption><tbody>${cells.map((cell) => html`<tr key="${cell.row},${cell.column}">
    <th scope="row">${[rows[cell.row - 1], columns[cell.column - 1]].filter(Boolean).join(", ")}</th><td>${cell.error}</td>
    <td>${cell.recipe && html`<button onClick=${() => useCell(cell)}>Use</button>`}</td></tr>`)}</tbody></table>`;
}

function Costs({ result: { width, height, seconds: took, costs, peak_memory_mb: memory } }) {
  const rows = { total: costs.total, content: costs.content, style: costs.style, ...costs.style_layers };
  return html`<p class="hint">${width} × ${height} pixels, ${seconds(took)}${memory ? `, up to ${Math.round(memory)} MB` : ""}</p>
    <table><caption title="How different the result still is from the photograph (content) and from the style">Final costs</caption>
      <tbody>${Object.entries(rows).map(([name, value]) => html`
        <tr key=${name}><th scope="row">${name}</th><td class="number">${typed(value)}</td></tr>`)}</tbody></table>`;
}

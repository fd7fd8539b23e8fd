// Paint: the form; the current painting, or an instant picture of what the form says; styles to choose from; the queue.

import { html, useState } from "./vendor/htm-preact.js";
import { jobUrl, post } from "./api.js";
import { LIVE, addJob, attempt, change, isPicture, jobOf, useStudio } from "./state.js";
import { changesInWords, defaultOf, label, requestValue, typed } from "./recipe.js";
import { JobButtons, JobRow, Thumb, Warnings, canNotify, comparable, isOpen, jobPicture, percent, running, statusOf } from "./jobs.js";
import { Compare } from "./compare.js";
import { Curve } from "./curve.js";
import { Select, withValue } from "./controls.js";
import { Live, Samples, Styles } from "./live.js";
import { Form, LogSlider, NumberEntry, showStage } from "./form.js";

const RECENT = 12; // finished jobs to show

export function Paint() {
  const { jobs, shown, form } = useStudio();
  const paintings = jobs.filter(isPicture), job = shown === LIVE ? null : jobOf(shown) ?? running(paintings) ?? paintings[0];
  return html`<main class="paint" tabindex="-1">
    <${Form} />
    <section class="stage" aria-label="The painting">
      ${job ? html`<${Stage} job=${job} />` : html`<${Live} />`}
      ${!form.content && html`<${Samples} />`}
      <${Styles} />
      <${Queue} current=${job} />
    </section></main>`;
}

function Stage({ job }) {
  const url = jobPicture(job), isDone = job.state === "finished", isLive = job.state === "running" || job.state === "paused";
  return html`
    <div class="top"><h2>${job.name}</h2><div class="buttons">
      ${isDone && html`<${Downloads} job=${job} />`}
      ${job.state === "running" && canNotify("default") && html`<${Notify} />`}
      ${isDone && job.kind === "painting" && html`<${Onward} job=${job} />`}
      <${JobButtons} job=${job} /></div></div>
    ${url && html`<${Compare} id=${job.id} name=${job.kind === "grid" ? "Sheet" : "Painting"} url=${url} others=${comparable(job)} />`}
    ${!url && html`<div class="empty waiting"><${Thumb} job=${job} /></div>`}
    <p class="job-status">${statusOf(job)}${isDone && html` <a href="#gallery/${job.id}">Settings and costs</a>`}</p>
    ${isOpen(job) && job.step && html`<progress max="100" value=${percent(job)} aria-label="Progress of the painting" />`}
    ${job.error && html`<p class="problem">${job.error}</p>`}
    <${Warnings} job=${job} />
    <div class="beside">
      <${Curve} key=${job.id} job=${job} />
      ${job.kind === "painting" && isLive && html`<${WhileItRuns} key=${job.id} job=${job} />`}
    </div>`;
}

// PNG with the recipe is the file itself; the others are made of it.
export function Downloads({ job }) {
  const [asked, setAsked] = useState("png"), [format, bare] = asked.split(" ");
  const address = asked === "png" ? jobUrl(job.id, "download") : `${jobUrl(job.id, `as/${format}`)}?recipe=${bare ? 0 : 1}`;
  const choices = [["png", "PNG"], ["jpg", "JPEG"], ["png bare", "PNG without recipe"], ["jpg bare", "JPEG without recipe"]];
  return html`<span class="buttons"><a class="button strong" href=${address} download>Download</a>
    <${Select} aria-label="Format of the download" value=${asked} choices=${choices} onChange=${setAsked} /></span>`;
}

function Notify() {
  const [, redraw] = useState(0);
  return html`<button onClick=${() => Notification.requestPermission().then(() => redraw((n) => n + 1))}>Tell me when it is done</button>`;
}

const FINER = { draft: "standard", standard: "fine" };
const MOST = 4096; // pixels of the longer side that "Larger" goes to
const VARIED = { rows: ["beta", 0.5, 2], columns: ["style_scale", 0.7, 1.4] }; // factors of what it was painted with

// What comes next after a painting: the same larger, finer, or in four variations.
function Onward({ job }) {
  const { recipe, width, height } = job.result, finer = FINER[recipe.quality], size = 2 * Math.max(width, height);
  const { kind, rows, columns, ...asked } = job.asked;
  const paint = (knobs, rest = {}) => attempt(async () => {
    addJob(await post("/api/jobs", { kind: "painting", ...asked, ...rest, knobs: { ...asked.knobs, ...knobs } }));
    change({ shown: null });
  });
  const varied = ([knob, ...factors]) => [knob, ...factors.map((factor) => typed(recipe[knob] * factor))];
  return html`
    ${size <= MOST && html`<button onClick=${() => paint({ size })} title="The same at ${size} pixels">Larger</button>`}
    ${finer && html`<button onClick=${() => paint({ quality: finer })} title="The same in quality ${finer}">Finer</button>`}
    ${recipe.beta > 0 && html`<button onClick=${() => paint({}, { kind: "grid", rows: varied(VARIED.rows), columns: varied(VARIED.columns), changes: {} })}
      title="Half and twice the strength, with finer and broader strokes">4 variations</button>`}`;
}

// The knobs that can change while painting.
function WhileItRuns({ job }) {
  const { recipe } = useStudio(), [edited, setEdited] = useState({});
  const fields = recipe.fields.filter((field) => recipe.changeable.includes(field.name) && field.kind !== "edit");
  const now = { ...recipe.presets[job.asked.preset], ...Object.assign({}, job.asked.knobs, ...Object.values(job.changes)), ...edited };
  const apply = () => attempt(async () => {
    const knobs = Object.fromEntries(fields.filter((field) => field.name in edited).map((field) => [field.name, requestValue(field, edited[field.name])]));
    addJob(await post(jobUrl(job.id, "change"), { knobs }));
    setEdited({});
  });
  return html`<details class="live"><summary>Change while it runs</summary>
    ${fields.map((field) => html`<${LiveKnob} key=${field.name} field=${field} value=${now[field.name]} defaultValue=${defaultOf(recipe, job.asked.preset, field)}
      isEdited=${field.name in edited} onChange=${(value) => setEdited({ ...edited, [field.name]: value })} />`)}
    <button disabled=${!Object.keys(edited).length} onClick=${apply}>Apply from here</button>
    ${Object.entries(job.changes).map(([i, knobs]) => html`<p class="hint" key=${i}>From step ${i}: ${changesInWords(knobs)}</p>`)}
  </details>`;
}

function LiveKnob({ field, value, defaultValue, isEdited, onChange }) {
  const { name, kind, description } = field, id = `live-${name}`;
  return html`<div class="knob ${isEdited ? "changed" : ""}"><label for=${id} title=${description}>${label(name)}</label>
    <span class="number">
      ${kind === "float" && defaultValue > 0 && html`<${LogSlider} name=${label(name)} value=${value} defaultValue=${defaultValue} onChange=${onChange} />`}
      ${kind === "float" && html`<${NumberEntry} field=${field} about=${{ id }} value=${value} onChange=${onChange} />`}
      ${kind !== "float" && html`<input id=${id} type="text" spellcheck="false" value=${typed(value)} onInput=${withValue(onChange)} />`}</span></div>`;
}

function Queue({ current }) {
  const { jobs } = useStudio(), open = jobs.filter(isOpen).reverse();
  const done = jobs.filter((job) => job.state === "finished" && isPicture(job)).slice(0, RECENT);
  const show = (job) => { change({ shown: job.id }); showStage(); };
  return html`
    ${open.length > 0 && html`<section><h3>Queue</h3><ul class="jobs">${open.map((job) => html`
      <${JobRow} key=${job.id} job=${job} current=${job === current} show=${isPicture(job) ? show : null} />`)}</ul></section>`}
    ${done.length > 0 && html`<section><h3>Recent</h3><ul class="strip">${done.map((job) => html`<li key=${job.id}>
      <button aria-pressed=${job === current} aria-label="Show ${job.name}" title=${job.name} onClick=${() => show(job)}>
        <${Thumb} job=${job} /></button></li>`)}</ul></section>`}`;
}

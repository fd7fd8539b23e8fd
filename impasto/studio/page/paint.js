// Paint: the form, the current painting, and the queue.

import { html, useState } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl, post } from "./api.js";
import { addJob, attempt, change, isPicture, jobOf, pictureOf, useStudio } from "./state.js";
import { changesInWords, defaultOf, label, requestValue, typed } from "./recipe.js";
import { JobButtons, JobRow, Thumb, Warnings, comparable, isOpen, jobPicture, percent, running, statusOf } from "./jobs.js";
import { Compare } from "./compare.js";
import { Curve } from "./curve.js";
import { withValue } from "./controls.js";
import { Form, LogSlider, NumberEntry, showStage } from "./form.js";

const RECENT = 12; // finished jobs to show

export function Paint() {
  const { jobs, shown } = useStudio();
  const paintings = jobs.filter(isPicture), job = jobOf(shown) ?? running(paintings) ?? paintings[0];
  return html`<main class="paint" tabindex="-1">
    <${Form} />
    <section class="stage" aria-label="The painting">
      ${job ? html`<${Stage} job=${job} />` : html`<${Empty} />`}
      <${Queue} current=${job} />
    </section></main>`;
}

function Empty() {
  const { form } = useStudio(), picture = pictureOf(form.content);
  return html`<div class="empty">${picture && html`<img src=${pictureUrl(picture.id)} alt=${picture.name} />`}
    <p>${!picture ? "Drop a photograph and a style picture anywhere, then press Paint."
      : form.styles.length ? "Press Paint." : "Add a style, then press Paint."}</p></div>`;
}

function Stage({ job }) {
  const url = jobPicture(job), isDone = job.state === "finished", isLive = job.state === "running" || job.state === "paused";
  return html`
    <div class="top"><h2>${job.name}</h2><${JobButtons} job=${job} /></div>
    ${url && html`<${Compare} id=${job.id} name=${job.kind === "grid" ? "Sheet" : "Painting"} url=${url} others=${comparable(job)} />`}
    ${!url && html`<div class="empty waiting"><${Thumb} job=${job} /></div>`}
    <p class="job-status">${statusOf(job)}${isDone && html` <a href="#gallery/${job.id}">Settings and costs</a>
      <a href=${jobUrl(job.id, "download")} download>Download</a>`}</p>
    ${isOpen(job) && job.step && html`<progress max="100" value=${percent(job)} aria-label="Progress of the painting" />`}
    ${job.error && html`<p class="problem">${job.error}</p>`}
    <${Warnings} job=${job} />
    <div class="beside">
      <${Curve} key=${job.id} job=${job} />
      ${job.kind === "painting" && isLive && html`<${WhileItRuns} key=${job.id} job=${job} />`}
    </div>`;
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

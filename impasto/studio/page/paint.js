// Paint: the form beside the stage, where the painting comes into being, and what is waiting.

import { html, useState } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl, post } from "./api.js";
import { addJob, attempt, change, isPicture, jobOf, pictureOf, useStudio } from "./state.js";
import { changesInWords, label, standard, taken, typed } from "./recipe.js";
import { JobButtons, JobRow, Thumb, Warnings, comparable, isOpen, jobPicture, percent, running, told } from "./jobs.js";
import { Compare } from "./compare.js";
import { Curve } from "./curve.js";
import { given } from "./controls.js";
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
    <p class="told">${told(job)}${isDone && html` <a href="#gallery/${job.id}">Settings and costs</a>
      <a href=${jobUrl(job.id, "download")} download>Download</a>`}</p>
    ${isOpen(job) && job.step && html`<progress max="100" value=${percent(job)} aria-label="Progress of the painting" />`}
    ${job.error && html`<p class="problem">${job.error}</p>`}
    <${Warnings} job=${job} />
    <div class="beside">
      <${Curve} key=${job.id} job=${job} />
      ${job.kind === "painting" && isLive && html`<${WhileItRuns} key=${job.id} job=${job} />`}
    </div>`;
}

// The knobs that may change under way.
function WhileItRuns({ job }) {
  const { recipe } = useStudio(), [moved, move] = useState({});
  const fields = recipe.fields.filter((it) => recipe.changeable.includes(it.name) && it.kind !== "edit");
  const now = { ...recipe.presets[job.asked.preset], ...Object.assign({}, job.asked.knobs, ...Object.values(job.changes)), ...moved };
  const apply = () => attempt(async () => {
    const knobs = Object.fromEntries(fields.filter((it) => it.name in moved).map((it) => [it.name, taken(it, moved[it.name])]));
    addJob(await post(jobUrl(job.id, "change"), { knobs }));
    move({});
  });
  return html`<details class="live"><summary>Change while it runs</summary>
    ${fields.map((it) => html`<${LiveKnob} key=${it.name} field=${it} value=${now[it.name]} usual=${standard(recipe, job.asked.preset, it)}
      isMoved=${it.name in moved} put=${(value) => move({ ...moved, [it.name]: value })} />`)}
    <button disabled=${!Object.keys(moved).length} onClick=${apply}>Apply from here</button>
    ${Object.entries(job.changes).map(([i, knobs]) => html`<p class="hint" key=${i}>From step ${i}: ${changesInWords(knobs)}</p>`)}
  </details>`;
}

function LiveKnob({ field, value, usual, isMoved, put }) {
  const { name, kind, description } = field, id = `live-${name}`;
  return html`<div class="knob ${isMoved ? "changed" : ""}"><label for=${id} title=${description}>${label(name)}</label>
    <span class="number">
      ${kind === "float" && usual > 0 && html`<${LogSlider} name=${label(name)} value=${value} usual=${usual} put=${put} />`}
      ${kind === "float" && html`<${NumberEntry} field=${field} about=${{ id }} value=${value} put=${put} />`}
      ${kind !== "float" && html`<input id=${id} type="text" spellcheck="false" value=${typed(value)} onInput=${given(put)} />`}</span></div>`;
}

function Queue({ current }) {
  const { jobs } = useStudio(), open = jobs.filter(isOpen).reverse();
  const done = jobs.filter((it) => it.state === "finished" && isPicture(it)).slice(0, RECENT);
  const show = (job) => { change({ shown: job.id }); showStage(); };
  return html`
    ${open.length > 0 && html`<section><h3>Queue</h3><ul class="jobs">${open.map((it) => html`
      <${JobRow} key=${it.id} job=${it} current=${it === current} show=${isPicture(it) ? show : null} />`)}</ul></section>`}
    ${done.length > 0 && html`<section><h3>Recent</h3><ul class="strip">${done.map((it) => html`<li key=${it.id}>
      <button aria-pressed=${it === current} aria-label="Show ${it.name}" title=${it.name} onClick=${() => show(it)}>
        <${Thumb} job=${it} /></button></li>`)}</ul></section>`}`;
}

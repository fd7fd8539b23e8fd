// The status of a job and its buttons, for all views.

import { html } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl } from "./api.js";
import { actOn, isPainting, isPicture, paintAgain, pictureOf, removeJob, studio } from "./state.js";
import { Sure } from "./controls.js";

export const running = (jobs) => jobs.find((job) => job.state === "running") ?? jobs.find((job) => job.state === "paused");
export const isOpen = (job) => job.state !== "finished" && job.state !== "cancelled";

// The progress of a job; for a sheet, of all its paintings.
export function percent({ step }) {
  const [done, all] = step?.cells ?? [0, 1];
  return step?.of ? Math.floor((100 * (done + step.i / step.of)) / all) : 0;
}

export function seconds(left) {
  if (left < 90) return `${Math.max(1, Math.round(left))} s`;
  return left < 5400 ? `${Math.round(left / 60)} min` : `${(left / 3600).toFixed(1)} h`;
}

const STATES = {
  queued: "waiting", paused: "paused", finished: "finished", failed: "failed", cancelled: "cancelled",
  unfinished: "interrupted: the studio stopped",
};

// "step 12 of 90, at 256 px, 40 s left"
export function statusOf(job) {
  const { step, state } = job;
  const at = step?.of > 0 && `step ${step.i} of ${step.of}${isPicture(job) && step.scale ? `, at ${step.scale} px` : ""}`;
  if (state !== "running") return isOpen(job) && at ? `${STATES[state]}, ${at}` : STATES[state];
  if (job.ending) return job.ending === "paused" ? "pausing, after this step" : "stopping, after this step";
  if (!step) return "starting";
  return [step.message, at, step.left !== null && `${seconds(step.left)} left`].filter(Boolean).join(", ");
}

export const canNotify = (permission) => "Notification" in window && Notification.permission === permission;

// The job's present picture; null if there is none yet.
export function jobPicture(job) {
  if (!isPicture(job)) return null;
  if (job.state === "finished") return jobUrl(job.id);
  return job.preview ? `${jobUrl(job.id, "preview")}?n=${job.preview}` : job.picture ? jobUrl(job.id) : null;
}

export function Thumb({ job }) {
  const from = job.asked.content ?? job.asked.styles?.[0] ?? job.asked.picture;
  const own = isPicture(job) && job.state === "finished" ? jobUrl(job.id, "small") : jobPicture(job);
  const url = own ?? (pictureOf(from) ? pictureUrl(from, "small") : job.asked.job ? jobUrl(job.asked.job, "small") : null);
  return url ? html`<img class="thumb" src=${url} alt="" loading="lazy" />` : html`<span class="thumb" />`;
}

// The inputs of a job, and earlier results to compare it with: [{name, url}].
export function comparable(job) {
  const { content, styles = [] } = job.asked;
  const from = [["photograph", content], ...styles.map((id) => ["style", id])].map(([what, id]) => [what, pictureOf(id)]);
  const earlier = studio.jobs.filter((other) => other.id !== job.id && isPainting(other) && other.state === "finished").slice(0, 60);
  return [
    ...from.filter(([, picture]) => picture).map(([what, picture]) => ({ name: `${what}: ${picture.name}`, url: pictureUrl(picture.id) })),
    ...earlier.map((other) => ({ name: `result: ${other.name}, ${when(other.created)}`, url: jobUrl(other.id) })),
  ];
}

export const when = (created) => new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function Warnings({ job }) {
  return [...new Set(job.warnings)].map((warning) => html`<p class="hint" key=${warning}>${warning}</p>`);
}

const ACTIONS = {
  queued: ["cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"], unfinished: ["resume", "remove"],
  failed: ["resume", "again", "remove"], cancelled: ["resume", "again", "remove"], finished: ["again"],
};
const BUTTONS = {
  pause: ["Pause", (job) => actOn(job, "pause")],
  resume: ["Resume", (job) => actOn(job, "resume")],
  cancel: ["Cancel", (job) => actOn(job, "cancel")],
  again: ["Paint again", paintAgain],
};

export function JobButtons({ job }) {
  const can = ACTIONS[job.state], shown = can.filter((action) => action in BUTTONS).map((action) => BUTTONS[action]);
  return html`<div class="buttons">
    ${shown.map(([text, act]) => html`<button key=${text} onClick=${() => act(job)} aria-label="${text}: ${job.name}">${text}</button>`)}
    ${can.includes("remove") && html`<${Sure} text="Remove" what=${job.name} sure="Remove it permanently?" run=${() => removeJob(job)} />`}</div>`;
}

export function JobRow({ job, current, show }) {
  const text = html`<${Thumb} job=${job} /><span><strong>${job.name}</strong><span class="note">${statusOf(job)}</span>
    ${job.error && html`<span class="problem">${job.error}</span>`}</span>`;
  return html`<li class="job ${current ? "current" : ""}">
    ${show && html`<button class="open" aria-pressed=${current} onClick=${() => show(job)}>${text}</button>`}
    ${!show && html`<div class="open">${text}</div>`}
    <${JobButtons} job=${job} />
    ${job.state === "running" && html`<progress max="100" value=${percent(job)} aria-label="Progress of ${job.name}" />`}
  </li>`;
}

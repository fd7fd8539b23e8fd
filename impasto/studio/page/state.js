// The state of the page: pictures, jobs, and the form, which is stored and survives a reload.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { get, listen, post, remove, upload } from "./api.js";
import { emptyForm, fromRecord } from "./recipe.js";

const STORAGE_KEY = "impasto-studio";

export const studio = {
  run: null, version: "", folder: "", recipe: null, pictures: [], jobs: [],
  shown: null, // the job on the stage; null: the one that runs, or the newest; LIVE: an instant picture of the form
  lost: false, denied: false, notice: null, uploading: null, problem: null,
  ...restored(),
};

function restored() {
  const { form, marks = [] } = stored() ?? {};
  return { form: { ...emptyForm(), ...form }, marks };
}

function stored() {
  try { return JSON.parse(localStorage.getItem(STORAGE_KEY)); } catch { return null; }
}

function save() {
  const { form, marks } = studio;
  try { localStorage.setItem(STORAGE_KEY, JSON.stringify({ form, marks })); } catch { /* a private window stores nothing */ }
}

const views = new Set();

export function change(parts) {
  Object.assign(studio, parts);
  if (parts.form || parts.marks) save();
  for (const view of views) view();
}

export function useStudio() {
  const [, rerender] = useState(0);
  useEffect(() => {
    const view = () => rerender((n) => n + 1);
    views.add(view);
    return () => views.delete(view);
  }, []);
  return studio;
}

export const LIVE = "live";

// A painting that runs stays on the stage until other pictures are chosen.
export function edit(parts) {
  const isPainted = studio.jobs.some((job) => isPicture(job) && job.state === "running"), isOther = "content" in parts || "styles" in parts;
  change({ form: { ...studio.form, ...parts }, shown: isPainted && !isOther ? studio.shown : LIVE, problem: null });
}
export const notify = (text, action = null) => change({ notice: { text, action, stays: Boolean(action) } });
export const warn = (text) => change({ notice: { text, action: null, stays: true } });
export const pictureOf = (id) => studio.pictures.find((picture) => picture.id === id);
export const isPainting = (job) => job.kind === "painting" || job.kind === "instant";
export const isPicture = (job) => isPainting(job) || job.kind === "grid";
export const jobOf = (id) => studio.jobs.find((job) => job.id === id);

// Awaits action() and returns its result; an error becomes a notice, and the result undefined.
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (error.status === 401) change({ denied: true });
    else warn(error.message);
  }
}

// Jobs and pictures

function merged(list, item) {
  const known = list.some((other) => other.id === item.id);
  return known ? list.map((other) => (other.id === item.id ? { ...other, ...item } : other)) : [item, ...list];
}

function addPicture(picture) {
  if (!picture.mask) change({ pictures: merged(studio.pictures, picture) });
}

export function addJob(job) {
  if (job.asked || jobOf(job.id)) change({ jobs: merged(studio.jobs, job) });
  else attempt(async () => addJob(await get(`/api/jobs/${job.id}`))); // an event with only some fields of an unknown job
}

const forget = (id) => change({ jobs: studio.jobs.filter((job) => job.id !== id), pictures: studio.pictures.filter((picture) => picture.id !== id) });

let pending = null; // jobs from events while all jobs are fetched; they may be newer

async function fetchAll() {
  const received = pending = [];
  try {
    const [recipe, { pictures }, { jobs }] = await Promise.all(["/api/recipe", "/api/pictures", "/api/jobs"].map(get));
    change({ recipe, pictures, jobs, denied: false });
    received.forEach(addJob);
    if (pending === received) pending = null; // no later fetch has started
  } catch (error) {
    change(error.status === 401 ? { denied: true } : { lost: true });
  }
}

// Calls `ready` when the browser is known to have access.
export function start(ready) {
  listen({
    hello: ({ run, version, folder }) => {
      const known = run === studio.run && studio.recipe;
      change({ run, version, folder, lost: false, problem: studio.lost ? null : studio.problem });
      if (!known) fetchAll().then(() => { if (studio.recipe && !studio.denied) ready(); });
    },
    job: (job) => { pending?.push(job); addJob(job); },
    gone: ({ id }) => forget(id),
    picture: addPicture,
    reload: fetchAll,
    lost: () => {
      change({ lost: true });
      get("/api/about").catch(({ status }) => change({ denied: status === 401 })); // the stream itself does not report the status
    },
  });
}

export const actOn = (job, action) => attempt(async () => addJob(await post(`/api/jobs/${job.id}/${action}`)));
export const removeJob = (job) => attempt(() => remove(`/api/jobs/${job.id}`));
export const removePicture = ({ id }) => attempt(async () => { await remove(`/api/pictures/${id}`); forget(id); });
export const paintAgain = (job) => attempt(async () => {
  addJob(await post("/api/jobs", { ...job.asked, ...(isPicture(job) && { changes: job.changes }) }));
  change({ shown: null });
});

// New pictures. A picture by Impasto contains its recipe.

const TO = {
  content: (ids) => edit({ content: ids[0], styles: [...studio.form.styles, ...ids.slice(1).map(withWeight)] }),
  styles: (ids) => edit({ styles: [...studio.form.styles, ...ids.map(withWeight)] }),
  start: (ids) => edit({ start: ids[0] }),
};

const withWeight = (id) => ({ id, weight: 1 });

// `place` is content, styles or start; by default content if there is no photograph yet, else styles.
export function use(ids, place = studio.form.content ? "styles" : "content") {
  if (!ids.length) return;
  TO[place](ids);
  location.hash = "#paint";
}

export async function addFiles(files, place) {
  const ids = [];
  for (const file of files) {
    change({ uploading: file.name });
    const picture = await attempt(() => upload(file, file.name));
    change({ uploading: null });
    if (!picture) continue;
    addPicture(picture);
    if (picture.record) await attempt(async () => restore(picture, place));
    else ids.push(picture.id);
  }
  use(ids, place);
}

function restore(picture, place) {
  edit(fromRecord(picture.record, studio.recipe));
  const { missing: names } = picture.record, missing = names.length ? `Missing in the studio: ${names.join(", ")}.` : "Its pictures are in the studio.";
  const instead = { label: "Use it as a picture instead", run: () => use([picture.id], place) };
  notify(`Impasto painted “${picture.name}”: its settings are now in the form. ${missing}`, instead);
  location.hash = "#paint";
}

// Adds a result to the studio's pictures, as an input for others.
export async function pictureOfJob(job) {
  const image = await (await fetch(`/api/jobs/${job.id}/image`)).blob();
  const picture = await upload(image, `${job.name}.png`);
  addPicture(picture);
  return picture.id;
}

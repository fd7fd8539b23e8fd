// What the page knows: the studio's pictures and jobs, and the form that was not sent yet, which survives a reload.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { get, listen, post, remove, upload } from "./api.js";
import { emptyForm, fromRecord } from "./recipe.js";

const KEPT = "impasto-studio";

export const studio = {
  run: null, version: "", folder: "", recipe: null, pictures: [], jobs: [],
  shown: null, // the job on the stage; null: the one that runs, or the newest
  lost: false, denied: false, notice: null, bringing: null, problem: null, // what is said where
  ...kept(),
};

function kept() {
  const { form, marks = [] } = stored() ?? {};
  return { form: { ...emptyForm(), ...form }, marks };
}

function stored() {
  try { return JSON.parse(localStorage.getItem(KEPT)); } catch { return null; }
}

function keep() {
  const { form, marks } = studio;
  try { localStorage.setItem(KEPT, JSON.stringify({ form, marks })); } catch { /* a private window keeps nothing */ }
}

const views = new Set();

export function change(parts) {
  Object.assign(studio, parts);
  if (parts.form || parts.marks) keep();
  for (const view of views) view();
}

export function useStudio() {
  const [, again] = useState(0);
  useEffect(() => {
    const view = () => again((n) => n + 1);
    views.add(view);
    return () => views.delete(view);
  }, []);
  return studio;
}

export const edit = (parts) => change({ form: { ...studio.form, ...parts }, problem: null });
export const tell = (text, action = null) => change({ notice: { text, action, stays: Boolean(action) } });
export const warn = (text) => change({ notice: { text, action: null, stays: true } });
export const pictureOf = (id) => studio.pictures.find((it) => it.id === id);
export const isPicture = (job) => job.kind === "painting" || job.kind === "grid";
export const jobOf = (id) => studio.jobs.find((it) => it.id === id);

// Runs what may be refused, and says so where everybody looks. -> what came of it, or undefined
export async function attempt(asked) {
  try {
    return await asked();
  } catch (error) {
    if (error.status === 401) change({ denied: true });
    else warn(error.message);
  }
}

// Jobs and pictures

function merged(list, item) {
  const known = list.some((it) => it.id === item.id);
  return known ? list.map((it) => (it.id === item.id ? { ...it, ...item } : it)) : [item, ...list];
}

function addPicture(picture) {
  if (!picture.mask) change({ pictures: merged(studio.pictures, picture) });
}

export function addJob(job) {
  if (job.asked || jobOf(job.id)) change({ jobs: merged(studio.jobs, job) });
  else attempt(async () => addJob(await get(`/api/jobs/${job.id}`))); // only a part of one that is not known
}

const forget = (id) => change({ jobs: studio.jobs.filter((it) => it.id !== id), pictures: studio.pictures.filter((it) => it.id !== id) });

let meanwhile = null; // jobs as they were told of while all were fetched, which may be newer

async function fetchAll() {
  const came = meanwhile = [];
  try {
    const [recipe, { pictures }, { jobs }] = await Promise.all(["/api/recipe", "/api/pictures", "/api/jobs"].map(get));
    change({ recipe, pictures, jobs, denied: false });
    came.forEach(addJob);
    if (meanwhile === came) meanwhile = null; // it was not begun anew
  } catch (error) {
    change(error.status === 401 ? { denied: true } : { lost: true });
  }
}

export function start() {
  listen({
    hello: ({ run, version, folder }) => {
      const known = run === studio.run && studio.recipe;
      change({ run, version, folder, lost: false, problem: studio.lost ? null : studio.problem }); // it answers again
      if (!known) fetchAll();
    },
    job: (job) => { meanwhile?.push(job); addJob(job); },
    gone: ({ id }) => forget(id),
    picture: addPicture,
    reload: fetchAll,
    lost: () => {
      change({ lost: true });
      get("/api/about").catch(({ status }) => change({ denied: status === 401 })); // a stream does not tell why it was refused
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

// Pictures that come in. One that Impasto painted brings its recipe along.

const TO = {
  content: (ids) => edit({ content: ids[0], styles: [...studio.form.styles, ...ids.slice(1).map(weighed)] }),
  styles: (ids) => edit({ styles: [...studio.form.styles, ...ids.map(weighed)] }),
  start: (ids) => edit({ start: ids[0] }),
};

const weighed = (id) => ({ id, weight: 1 });

// `place` is content, styles or start; left out: the photograph where there is none yet, else a painting.
export function use(ids, place = studio.form.content ? "styles" : "content") {
  if (!ids.length) return;
  TO[place](ids);
  location.hash = "#paint";
}

export async function bring(files, place) {
  const ids = [];
  for (const file of files) {
    change({ bringing: file.name });
    const picture = await attempt(() => upload(file, file.name));
    change({ bringing: null });
    if (!picture) continue;
    addPicture(picture);
    if (picture.record) await attempt(async () => restore(picture, place));
    else ids.push(picture.id);
  }
  use(ids, place);
}

function restore(picture, place) {
  edit(fromRecord(picture.record, studio.recipe));
  const { missing: lacks } = picture.record, missing = lacks.length ? `Missing in the studio: ${lacks.join(", ")}.` : "Its pictures are in the studio.";
  const instead = { label: "Use it as a picture instead", run: () => use([picture.id], place) };
  tell(`Impasto painted “${picture.name}”: its settings are now in the form. ${missing}`, instead);
  location.hash = "#paint";
}

// A painting of the studio's becomes one of its pictures, to be painted from.
export async function pictureOfJob(job) {
  const image = await (await fetch(`/api/jobs/${job.id}/image`)).blob();
  const picture = await upload(image, `${job.name}.png`);
  addPicture(picture);
  return picture.id;
}

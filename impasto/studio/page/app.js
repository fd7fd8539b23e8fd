// The page: its views (#paint, #gallery, #gallery/JOB, #lens, #lens/style/JOB), notices, and dropped or pasted pictures.

import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./vendor/htm-preact.js";
import { addFiles, change, jobOf, start, studio, useStudio } from "./state.js";
import { Gallery } from "./gallery.js";
import { Lens } from "./lens.js";
import { Paint } from "./paint.js";
import { warmUp } from "./live.js";
import { Notice } from "./controls.js";
import { canNotify, percent, running } from "./jobs.js";
import { emptyForm } from "./recipe.js";

const VIEWS = { paint: ["Paint", Paint], gallery: ["Gallery", Gallery], lens: ["Lens", Lens] };
const currentRoute = () => location.hash.slice(1).split("/");

function useRoute() {
  const [route, setRoute] = useState(currentRoute());
  useEffect(() => {
    const moved = () => setRoute(currentRoute());
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  return route;
}

function App() {
  const { recipe, denied, lost, notice, uploading, jobs, version, folder } = useStudio();
  const [name, ...rest] = useRoute();
  const [title, View] = VIEWS[name] ?? VIEWS.paint;
  const job = running(jobs);
  const done = useDone(jobs);
  useEffect(() => { document.title = `${job ? `${percent(job)} % ` : done ? `Done: ${done} – ` : ""}Impasto studio`; });
  useEffect(() => {
    if (document.activeElement === document.body) document.querySelector("main")?.focus({ preventScroll: true }); // the focused element is gone
  }, [title]);
  return html`
    <header>
      <h1><a href="#paint" title="Impasto ${version}, folder ${folder}">Impasto studio</a></h1>
      <nav aria-label="Views"><ul>${Object.entries(VIEWS).map(([view, [text]]) => html`
        <li><a href="#${view}" aria-current=${text === title ? "page" : undefined}>${text}</a></li>`)}</ul></nav>
    </header>
    ${lost && html`<p class="band" role="status">The studio does not answer; trying again.</p>`}
    ${uploading && html`<p class="band" role="status">Uploading “${uploading}”.</p>`}
    ${notice && html`<${Notice} ...${notice} />`}
    ${denied ? html`<${Denied} />` : recipe ? html`<${Guarded} View=${View} at=${rest} />` : html`<main><p class="empty">Loading …</p></main>`}
    <${Announcer} jobs=${jobs} />`;
}

// The name of the last job that ended while nobody looked at the page.
function useDone(jobs) {
  const [name, setName] = useState(""), before = useRef(null), job = jobs.find(({ state }) => state === "running");
  useEffect(() => {
    const ended = jobOf(before.current);
    if (!job && ended?.state === "finished" && document.hidden) {
      setName(ended.name);
      if (canNotify("granted")) new Notification("Impasto studio", { body: `Done: ${ended.name}` });
    }
    before.current = job?.id ?? null;
  }, [job?.id]);
  useEffect(() => {
    const looked = () => { if (!document.hidden) setName(""); };
    document.addEventListener("visibilitychange", looked);
    return () => document.removeEventListener("visibilitychange", looked);
  }, []);
  return name;
}

// The form may come from any file. If it cannot be shown, the user can empty it.
function Guarded({ View, at }) {
  const [error, retry] = useErrorBoundary();
  if (!error) return html`<${View} at=${at} />`;
  return html`<main class="plain"><h2>This cannot be shown</h2><p class="problem">${error.message}</p>
    <p><button onClick=${() => { change({ form: emptyForm(), marks: [] }); retry(); }}>Start with an empty form</button></p></main>`;
}

function Denied() {
  return html`<main class="plain"><h2>This browser has no access to the studio</h2>
    <p>Run <code>impasto studio</code> again: it opens the studio that runs, at a new address. Each address works once; a browser that has opened
      one has access for 30 days.</p></main>`;
}

// For screen readers: the progress in quarters, and how a job ended.
function Announcer({ jobs }) {
  const job = running(jobs), before = useRef(null), last = jobOf(before.current);
  const message = job ? `${job.name}: ${25 * Math.floor(percent(job) / 25)} percent done` : last ? `${last.name}: ${last.state}` : "";
  if (job) before.current = job.id;
  return html`<p class="unseen" role="status" aria-live="polite">${message}</p>`;
}

const isFile = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => { if (isFile(event)) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!isFile(event) || event.defaultPrevented) return;
  event.preventDefault();
  addFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length && studio.recipe) addFiles(event.clipboardData.files);
});

render(html`<${App} />`, document.getElementById("studio"));
start(warmUp);

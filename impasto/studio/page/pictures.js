// Pictures to paint from: places to drop them, and the dialog to pick one of the studio's.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl } from "./api.js";
import { attempt, bring, edit, pictureOf, pictureOfJob, removePicture, use, useStudio } from "./state.js";

export function Dialog({ title, close, kind = "", children }) {
  const dialog = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  return html`<dialog ref=${dialog} class=${kind} aria-label=${title} onClose=${close}>
    <div class="top"><h2>${title}</h2><button onClick=${() => dialog.current.close()}>Close</button></div>
    ${children}</dialog>`;
}

// Closes the dialog that an element is in; what had the focus before gets it back.
export const closeAround = (element) => element.closest("dialog").close();

export const Options = ({ names }) => names.map((it) => html`<option key=${it} value=${it}>${it}</option>`);

// A place for pictures, with all the ways to fill it.
export function Drop({ title, hint, place, many, children }) {
  const [over, enter] = useState(false), [picking, pick] = useState(false), input = useRef(null);
  const drop = (event) => {
    event.preventDefault();
    enter(false);
    bring(event.dataTransfer.files, place);
  };
  return html`<section class="drop ${over ? "over" : ""}" aria-label=${title} onDragOver=${() => enter(true)} onDragLeave=${() => enter(false)} onDrop=${drop}>
    <h3>${title}</h3>
    ${children || html`<p class="hint">${hint}</p>`}
    <div class="buttons">
      <button onClick=${() => input.current.click()} aria-label="Open a file: ${title}">Open a file</button>
      <button onClick=${() => pick(true)} aria-label="Pick from the studio: ${title}">Pick</button>
    </div>
    <input ref=${input} type="file" accept="image/*" multiple=${many} hidden onChange=${(event) => { bring([...event.target.files], place); event.target.value = ""; }} />
    ${picking && html`<${Picker} title="Pick: ${title}" close=${() => pick(false)} picked=${(id) => use([id], place)} />`}
  </section>`;
}

export function Photograph() {
  const { form } = useStudio(), picture = pictureOf(form.content);
  return html`<${Drop} title="Photograph" hint="Drop a photograph here, or paste one." place="content">
    ${picture && html`<figure><img src=${pictureUrl(picture.id, "small")} alt="" /><figcaption>${picture.name}</figcaption>
      <button class="away" aria-label="Take away the photograph ${picture.name}" onClick=${() => edit({ content: null })}>×</button></figure>`}
  <//>`;
}

export function Paintings() {
  const { form } = useStudio(), several = form.styles.length > 1;
  const put = (n, weight) => edit({ styles: form.styles.map((it, k) => (k === n ? { ...it, weight } : it)) });
  return html`<${Drop} title="Paintings" hint="Drop one or more paintings here." place="styles" many>
    ${form.styles.length > 0 && html`<div class="figures">${form.styles.map(({ id, weight }, n) => {
      const name = pictureOf(id)?.name ?? "a picture that is gone";
      return html`<figure key="${id}${n}">${pictureOf(id) && html`<img src=${pictureUrl(id, "small")} alt="" />`}<figcaption>${name}</figcaption>
        ${several && html`<label class="weight">weight <input type="number" min="0" step="any" required value=${weight} aria-label="Weight of ${name}" onInput=${(event) => put(n, event.target.value)} /></label>`}
        <button class="away" aria-label="Take away the painting ${name}" onClick=${() => edit({ styles: form.styles.filter((_, k) => k !== n) })}>×</button></figure>`;
    })}</div>`}
  <//>`;
}

// Calls picked(id) with a picture's id; a finished painting becomes a picture first, unless pickedJob takes it as it is.
export function Picker({ title, close, picked, pickedJob }) {
  const { pictures, jobs } = useStudio(), [words, search] = useState("");
  const matches = (it) => it.name.toLowerCase().includes(words.toLowerCase());
  const painted = jobs.filter((it) => it.kind === "painting" && it.state === "finished" && matches(it));
  const fromJob = pickedJob ?? (async (job) => { const id = await attempt(() => pictureOfJob(job)); if (id) picked(id); });
  return html`<${Dialog} title=${title} close=${close} kind="wide">
    <label class="search">Search <input type="search" value=${words} onInput=${(event) => search(event.target.value)} /></label>
    <ul class="cards">${pictures.filter(matches).map((it) => html`<li key=${it.id}>
      <button class="card" onClick=${({ target }) => { picked(it.id); closeAround(target); }}><img src=${pictureUrl(it.id, "small")} alt="" loading="lazy" /><span>${it.name}</span></button>
      ${!it.bundled && html`<button class="away" aria-label="Delete ${it.name} from the studio" onClick=${() => removePicture(it)}>×</button>`}</li>`)}</ul>
    ${painted.length > 0 && html`<h3>Painted here</h3><ul class="cards">${painted.map((it) => html`<li key=${it.id}>
      <button class="card" onClick=${({ target }) => { fromJob(it); closeAround(target); }}><img src=${jobUrl(it.id, "small")} alt="" loading="lazy" /><span>${it.name}</span></button></li>`)}</ul>`}
  <//>`;
}

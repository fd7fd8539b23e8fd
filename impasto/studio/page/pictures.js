// Input pictures: drop areas, and the dialog to pick one from the studio.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl } from "./api.js";
import { attempt, addFiles, edit, isPainting, pictureOf, pictureOfJob, removePicture, use, useStudio } from "./state.js";
import { Dialog, Sure, closeAround, withValue } from "./controls.js";
import { CropDialog } from "./crop.js";

// An area for pictures, to drop, open or pick them.
export function Drop({ title, hint, place, many, children }) {
  const [over, setOver] = useState(false), [picking, setPicking] = useState(false), input = useRef(null);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    addFiles(event.dataTransfer.files, place);
  };
  const open = ({ target }) => {
    addFiles([...target.files], place);
    target.value = ""; // so that the same file can be opened again
  };
  const moves = { onDragOver: () => setOver(true), onDragLeave: () => setOver(false), onDrop: drop };
  return html`<section class="drop ${over ? "over" : ""}" aria-label=${title} ...${moves}>
    <h3>${title}</h3>
    ${children || html`<p class="hint">${hint}</p>`}
    <div class="buttons">
      <button onClick=${() => input.current.click()} aria-label="Open a file: ${title}">Open a file</button>
      <button onClick=${() => setPicking(true)} aria-label="Pick from the studio: ${title}">Pick</button>
    </div>
    <input ref=${input} type="file" accept="image/*" multiple=${many} hidden onChange=${open} />
    ${picking && html`<${Picker} title="Pick: ${title}" close=${() => setPicking(false)} picked=${(id) => use([id], place)} />`}
  </section>`;
}

// A chosen picture; it may have been deleted since.
function Chosen({ id, what, remove, children }) {
  const picture = pictureOf(id), name = picture?.name ?? "deleted picture";
  return html`<figure>${picture && html`<img src=${pictureUrl(id, "small")} alt="" />`}<figcaption>${name}</figcaption>
    ${children}<button class="away" aria-label="Remove the ${what} ${name}" onClick=${remove}>×</button></figure>`;
}

export function Photograph() {
  const { form } = useStudio();
  return html`<${Drop} title="Photograph" hint="Drop a photograph here, or paste one." place="content">
    ${form.content && html`<${Chosen} id=${form.content} what="photograph" remove=${() => edit({ content: null })} />`}<//>`;
}

export function StartPicture() {
  const { form } = useStudio();
  return html`<${Drop} title="Start from" hint="Drop the picture to start from." place="start">
    ${form.start && html`<${Chosen} id=${form.start} what="picture to start from" remove=${() => edit({ start: null })} />`}<//>`;
}

export function Paintings() {
  const { form } = useStudio(), { styles } = form, [cropped, setCropped] = useState(null); // the number of the style that is cropped
  const set = (n, parts) => edit({ styles: styles.map((style, k) => (k === n ? { ...style, ...parts } : style)) });
  const remove = (n) => edit({ styles: styles.filter((_, k) => k !== n) });
  return html`<${Drop} title="Style" hint="Drop one or more style pictures here." place="styles" many>
    ${styles.length > 0 && html`<div class="figures">${styles.map(({ id, weight, crop }, n) => html`
      <${Chosen} key="${id}${n}" id=${id} what="style" remove=${() => remove(n)}>
        ${styles.length > 1 && html`<label class="weight">weight <input type="number" min="0" step="any" required value=${weight}
          aria-label="Weight of ${pictureOf(id)?.name}" onInput=${withValue((value) => set(n, { weight: value }))} /></label>`}
        ${pictureOf(id) && html`<button class="crop-button" aria-label="Crop ${pictureOf(id).name}" onClick=${() => setCropped(n)}>
          ${crop?.includes(",") ? "Cropped" : "Crop"}</button>`}<//>`)}</div>`}
    ${pictureOf(styles[cropped]?.id) && html`<${CropDialog} picture=${pictureOf(styles[cropped].id)} crop=${styles[cropped].crop ?? ""}
      close=${() => setCropped(null)} saved=${(crop) => set(cropped, { crop })} />`}<//>`;
}

// Calls picked(id) with a picture's id; a finished painting becomes a picture first, or pickedJob(job) is called if there is one.
export function Picker({ title, close, picked, pickedJob = (job) => attempt(async () => picked(await pictureOfJob(job))) }) {
  const { pictures, jobs } = useStudio(), [words, setWords] = useState("");
  const matches = (entry) => entry.name.toLowerCase().includes(words.toLowerCase());
  const painted = jobs.filter((job) => isPainting(job) && job.state === "finished" && matches(job));
  const card = (name, url, act) => html`<button class="card" onClick=${({ target }) => { act(); closeAround(target); }}>
    <img src=${url} alt="" loading="lazy" /><span>${name}</span></button>`;
  return html`<${Dialog} title=${title} close=${close} kind="wide">
    <label class="search">Search <input type="search" value=${words} onInput=${withValue(setWords)} /></label>
    <ul class="cards">${pictures.filter(matches).map((picture) => html`<li key=${picture.id}>
      ${card(picture.name, pictureUrl(picture.id, "small"), () => picked(picture.id))}
      ${!picture.bundled && html`<${Sure} text="Delete" what=${picture.name} sure="Delete picture permanently?" run=${() => removePicture(picture)} />`}
    </li>`)}</ul>
    ${painted.length > 0 && html`<h3>Results</h3><ul class="cards">${painted.map((job) => html`
      <li key=${job.id}>${card(job.name, jobUrl(job.id, "small"), () => pickedJob(job))}</li>`)}</ul>`}<//>`;
}

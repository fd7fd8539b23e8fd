// Pictures to paint from: places to drop them, and the dialog to pick one of the studio's.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { jobUrl, pictureUrl } from "./api.js";
import { attempt, bring, edit, pictureOf, pictureOfJob, removePicture, use, useStudio } from "./state.js";
import { Dialog, Sure, closeAround, given } from "./controls.js";

// A place for pictures, with all the ways to fill it.
export function Drop({ title, hint, place, many, children }) {
  const [over, enter] = useState(false), [picking, pick] = useState(false), input = useRef(null);
  const drop = (event) => {
    event.preventDefault();
    enter(false);
    bring(event.dataTransfer.files, place);
  };
  const open = ({ target }) => {
    bring([...target.files], place);
    target.value = ""; // so that the same file can be opened again
  };
  const moves = { onDragOver: () => enter(true), onDragLeave: () => enter(false), onDrop: drop };
  return html`<section class="drop ${over ? "over" : ""}" aria-label=${title} ...${moves}>
    <h3>${title}</h3>
    ${children || html`<p class="hint">${hint}</p>`}
    <div class="buttons">
      <button onClick=${() => input.current.click()} aria-label="Open a file: ${title}">Open a file</button>
      <button onClick=${() => pick(true)} aria-label="Pick from the studio: ${title}">Pick</button>
    </div>
    <input ref=${input} type="file" accept="image/*" multiple=${many} hidden onChange=${open} />
    ${picking && html`<${Picker} title="Pick: ${title}" close=${() => pick(false)} picked=${(id) => use([id], place)} />`}
  </section>`;
}

// A picture that was chosen; one that was deleted since has no more than that to say.
function Chosen({ id, what, takeAway, children }) {
  const picture = pictureOf(id), name = picture?.name ?? "deleted picture";
  return html`<figure>${picture && html`<img src=${pictureUrl(id, "small")} alt="" />`}<figcaption>${name}</figcaption>
    ${children}<button class="away" aria-label="Remove the ${what} ${name}" onClick=${takeAway}>×</button></figure>`;
}

export function Photograph() {
  const { form } = useStudio();
  return html`<${Drop} title="Photograph" hint="Drop a photograph here, or paste one." place="content">
    ${form.content && html`<${Chosen} id=${form.content} what="photograph" takeAway=${() => edit({ content: null })} />`}<//>`;
}

export function StartPicture() {
  const { form } = useStudio();
  return html`<${Drop} title="Start from" hint="Drop the picture to start from." place="start">
    ${form.start && html`<${Chosen} id=${form.start} what="picture to start from" takeAway=${() => edit({ start: null })} />`}<//>`;
}

export function Paintings() {
  const { form } = useStudio(), { styles } = form;
  const put = (n, weight) => edit({ styles: styles.map((it, k) => (k === n ? { ...it, weight } : it)) });
  const takeAway = (n) => edit({ styles: styles.filter((_, k) => k !== n) });
  return html`<${Drop} title="Style" hint="Drop one or more style pictures here." place="styles" many>
    ${styles.length > 0 && html`<div class="figures">${styles.map(({ id, weight }, n) => html`
      <${Chosen} key="${id}${n}" id=${id} what="style" takeAway=${() => takeAway(n)}>
        ${styles.length > 1 && html`<label class="weight">weight <input type="number" min="0" step="any" required value=${weight}
          aria-label="Weight of ${pictureOf(id)?.name}" onInput=${given((it) => put(n, it))} /></label>`}<//>`)}</div>`}<//>`;
}

// Calls picked(id) with a picture's id; a finished painting becomes a picture first, unless pickedJob takes it as it is.
export function Picker({ title, close, picked, pickedJob = (job) => attempt(async () => picked(await pictureOfJob(job))) }) {
  const { pictures, jobs } = useStudio(), [words, search] = useState("");
  const matches = (it) => it.name.toLowerCase().includes(words.toLowerCase());
  const painted = jobs.filter((it) => it.kind === "painting" && it.state === "finished" && matches(it));
  const card = (name, url, act) => html`<button class="card" onClick=${({ target }) => { act(); closeAround(target); }}>
    <img src=${url} alt="" loading="lazy" /><span>${name}</span></button>`;
  return html`<${Dialog} title=${title} close=${close} kind="wide">
    <label class="search">Search <input type="search" value=${words} onInput=${given(search)} /></label>
    <ul class="cards">${pictures.filter(matches).map((it) => html`<li key=${it.id}>
      ${card(it.name, pictureUrl(it.id, "small"), () => picked(it.id))}
      ${!it.bundled && html`<${Sure} text="Delete" what=${it.name} sure="Delete it permanently?" run=${() => removePicture(it)} />`}
    </li>`)}</ul>
    ${painted.length > 0 && html`<h3>Results</h3><ul class="cards">${painted.map((it) => html`
      <li key=${it.id}>${card(it.name, jobUrl(it.id, "small"), () => pickedJob(it))}</li>`)}</ul>`}<//>`;
}

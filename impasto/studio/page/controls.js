// Controls that more than one view is made of.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl } from "./api.js";
import { useStudio } from "./state.js";

// What was typed or chosen goes to `act`.
export const given = (act) => (event) => act(event.target.value);
export const givenNumber = (act) => (event) => act(Number(event.target.value));

// `choices` are names, or [value, text].
export function Select({ choices, put, ...rest }) {
  const pairs = choices.map((it) => (Array.isArray(it) ? it : [it, it]));
  return html`<select ...${rest} onChange=${given(put)}>
    ${pairs.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select>`;
}

export function Dialog({ title, close, kind = "", children }) {
  const dialog = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  return html`<dialog ref=${dialog} class=${kind} aria-label=${title} onClose=${close}>
    <div class="top"><h2>${title}</h2><button onClick=${() => dialog.current.close()}>Close</button></div>
    ${children}</dialog>`;
}

// Closes the dialog that an element is in; what had the focus before gets it back.
export const closeAround = (element) => element.closest("dialog").close();

// A button that asks before it does what cannot be undone; `what` it is done to, for those who hear the page.
export function Sure({ text, what = "", sure, run }) {
  const [asking, ask] = useState(false);
  const act = () => { ask(false); run(); };
  if (!asking) return html`<button key="first" aria-label="${text} ${what}" onClick=${() => ask(true)}>${text}</button>`;
  return html`<span class="buttons" key="second" role="group" aria-label=${sure}><span>${sure}</span>
    <button class="danger" ref=${(it) => it?.focus()} onClick=${act}>${text}</button>
    <button onClick=${() => ask(false)}>Keep</button></span>`;
}

// Any number of the studio's pictures, in the order in which they are chosen.
export function Choose({ title, chosen, put }) {
  const { pictures } = useStudio();
  const flip = (id) => put(chosen.includes(id) ? chosen.filter((it) => it !== id) : [...chosen, id]);
  return html`<div class="choose" role="group" aria-label=${title}>${pictures.map((it) => html`
    <button key=${it.id} aria-pressed=${chosen.includes(it.id)} onClick=${() => flip(it.id)}>
      <img src=${pictureUrl(it.id, "small")} alt=${it.name} title=${it.name} loading="lazy" /></button>`)}</div>`;
}

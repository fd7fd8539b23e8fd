// Controls that more than one view is made of.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl } from "./api.js";
import { change, useStudio } from "./state.js";

// What was typed or chosen goes to `act`.
export const given = (act) => (event) => act(event.target.value);
export const givenNumber = (act) => (event) => act(Number(event.target.value));

// `choices` are names, or [value, text].
export function Select({ choices, put, ...rest }) {
  const pairs = choices.map((it) => (Array.isArray(it) ? it : [it, it]));
  return html`<select ...${rest} onChange=${given(put)}>
    ${pairs.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select>`;
}

// Notices. A dialog covers the page, so it shows them too.
const READ = 8000; // milliseconds in which a notice that asks nothing can be read

export function Notice({ text, action, stays }) {
  const close = () => change({ notice: null });
  useEffect(() => {
    if (stays) return;
    const later = setTimeout(close, READ);
    return () => clearTimeout(later);
  }, [text, stays]);
  return html`<div class="band" role=${stays ? "alert" : "status"}><span>${text}</span>
    ${action && html`<button onClick=${() => { close(); action.run(); }}>${action.label}</button>`}
    <button onClick=${close} aria-label="Dismiss this message">Dismiss</button></div>`;
}

// `unsaved`: closing it would lose something, so it asks first.
export function Dialog({ title, close, kind = "", unsaved = false, children }) {
  const { notice } = useStudio(), dialog = useRef(null), [asking, ask] = useState(false);
  useEffect(() => { dialog.current.showModal(); }, []);
  const leave = (event) => {
    if (!unsaved || event.target !== dialog.current) return;
    event.preventDefault();
    ask(true);
  };
  return html`<dialog ref=${dialog} class=${kind} aria-label=${title} onClose=${close} onCancel=${leave}>
    <div class="top"><h2>${title}</h2>${asking && unsaved ? html`<span class="buttons" role="group" aria-label="Close without saving?">
        <span>Close without saving?</span><button class="danger" ref=${(it) => it?.focus()} onClick=${() => dialog.current.close()}>Close</button>
        <button onClick=${() => ask(false)}>Continue</button></span>`
      : html`<button onClick=${() => (unsaved ? ask(true) : dialog.current.close())}>Close</button>`}</div>
    ${notice && html`<${Notice} ...${notice} />`}
    ${children}</dialog>`;
}

// Closes the dialog that an element is in; what had the focus before gets it back.
export const closeAround = (element) => element.closest("dialog").close();

// A button that asks for confirmation. `what` names the object, for screen readers.
export function Sure({ text, what = "", sure, run }) {
  const [asking, ask] = useState(false);
  const act = () => { ask(false); run(); };
  if (!asking) return html`<button key="first" aria-label="${text} ${what}" onClick=${() => ask(true)}>${text}</button>`;
  return html`<span class="buttons" key="second" role="group" aria-label=${sure}><span>${sure}</span>
    <button class="danger" ref=${(it) => it?.focus()} onClick=${act}>${text}</button>
    <button onClick=${() => ask(false)}>Cancel</button></span>`;
}

// Any number of the studio's pictures, in the order in which they are chosen.
export function Choose({ title, chosen, put }) {
  const { pictures } = useStudio();
  const flip = (id) => put(chosen.includes(id) ? chosen.filter((it) => it !== id) : [...chosen, id]);
  return html`<div class="choose" role="group" aria-label=${title}>${pictures.map((it) => html`
    <button key=${it.id} aria-pressed=${chosen.includes(it.id)} onClick=${() => flip(it.id)}>
      <img src=${pictureUrl(it.id, "small")} alt=${it.name} title=${it.name} loading="lazy" /></button>`)}</div>`;
}

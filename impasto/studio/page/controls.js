// Controls that several views use.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pictureUrl } from "./api.js";
import { change, useStudio } from "./state.js";

// Event handlers that call `act` with the value of the control.
export const withValue = (act) => (event) => act(event.target.value);
export const withNumber = (act) => (event) => act(Number(event.target.value));

// `choices` are names, or [value, text].
export function Select({ choices, onChange, ...rest }) {
  const pairs = choices.map((choice) => (Array.isArray(choice) ? choice : [choice, choice]));
  return html`<select ...${rest} onChange=${withValue(onChange)}>
    ${pairs.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select>`;
}

// Notices. A dialog covers the page, so it shows them too.
const NOTICE_TIME = 8000; // milliseconds until a notice without a button closes

export function Notice({ text, action, stays }) {
  const close = () => change({ notice: null });
  useEffect(() => {
    if (stays) return;
    const later = setTimeout(close, NOTICE_TIME);
    return () => clearTimeout(later);
  }, [text, stays]);
  return html`<div class="band" role=${stays ? "alert" : "status"}><span>${text}</span>
    ${action && html`<button onClick=${() => { close(); action.run(); }}>${action.label}</button>`}
    <button onClick=${close} aria-label="Dismiss this message">Dismiss</button></div>`;
}

// With `unsaved`, closing the dialog needs confirmation.
export function Dialog({ title, close, kind = "", unsaved = false, children }) {
  const { notice } = useStudio(), dialog = useRef(null), [asking, setAsking] = useState(false);
  useEffect(() => { dialog.current.showModal(); }, []);
  const leave = (event) => {
    if (!unsaved || event.target !== dialog.current) return;
    event.preventDefault();
    setAsking(true);
  };
  return html`<dialog ref=${dialog} class=${kind} aria-label=${title} onClose=${close} onCancel=${leave}>
    <div class="top"><h2>${title}</h2>${asking && unsaved ? html`<span class="buttons" role="group" aria-label="Close without saving?">
        <span>Close without saving?</span><button class="danger" ref=${(button) => button?.focus()} onClick=${() => dialog.current.close()}>Close</button>
        <button onClick=${() => setAsking(false)}>Continue</button></span>`
      : html`<button onClick=${() => (unsaved ? setAsking(true) : dialog.current.close())}>Close</button>`}</div>
    ${notice && html`<${Notice} ...${notice} />`}
    ${children}</dialog>`;
}

// Closes the dialog that contains the element.
export const closeAround = (element) => element.closest("dialog").close();

// A button that asks for confirmation. `what` names the object, for screen readers.
export function Sure({ text, what = "", sure, run }) {
  const [asking, setAsking] = useState(false);
  const act = () => { setAsking(false); run(); };
  if (!asking) return html`<button key="first" aria-label="${text} ${what}" onClick=${() => setAsking(true)}>${text}</button>`;
  return html`<span class="buttons" key="second" role="group" aria-label=${sure}><span>${sure}</span>
    <button class="danger" ref=${(button) => button?.focus()} onClick=${act}>${text}</button>
    <button onClick=${() => setAsking(false)}>Cancel</button></span>`;
}

// Any number of the studio's pictures, in the order in which they are chosen.
export function Choose({ title, chosen, onChange }) {
  const { pictures } = useStudio();
  const flip = (id) => onChange(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  return html`<div class="choose" role="group" aria-label=${title}>${pictures.map((picture) => html`
    <button key=${picture.id} aria-pressed=${chosen.includes(picture.id)} onClick=${() => flip(picture.id)}>
      <img src=${pictureUrl(picture.id, "small")} alt=${picture.name} title=${picture.name} loading="lazy" /></button>`)}</div>`;
}

// The form: pictures, preset, knobs. Its knobs come from the studio's recipe, with their bounds, defaults and descriptions.

import { html, useRef } from "./vendor/htm-preact.js";
import { pictureUrl, post } from "./api.js";
import { addJob, change, edit, pictureOf, studio, useStudio } from "./state.js";
import { GROUPS, PLACED, asked, editLines, emptyForm, label, standard, typed, withoutLine } from "./recipe.js";
import { Drop, Options, Paintings, Photograph } from "./pictures.js";
import { Regions } from "./regions.js";
import { Sure } from "./jobs.js";

export function Form() {
  const { form, recipe, problem } = useStudio(), top = useRef(null);
  const listed = recipe.fields.filter((it) => !PLACED.includes(it.name)), main = listed.filter((it) => it.group === "main");
  const count = Object.keys(form.knobs).length;
  return html`<section class="form" ref=${top} aria-label="What to paint">
    <h2 class="unseen">What to paint</h2>
    <div class="sources"><${Photograph} /><${Paintings} /></div>
    <${Preset} />
    ${main.map((it) => html`<${Knob} key=${it.name} field=${it} />`)}
    <${StyleEdit} />
    <details><summary>Parts of the photograph</summary><${Regions} /></details>
    <details><summary>All settings</summary>
      ${count > 0 && html`<p class="hint">${count} ${count === 1 ? "setting differs" : "settings differ"} from the preset. <button onClick=${() => edit({ knobs: {} })}>Reset all</button></p>`}
      ${Object.entries(GROUPS).map(([group, name]) => html`<${Group} key=${group} name=${name} fields=${listed.filter((it) => it.group === group)} />`)}
    </details>
    <details><summary>A sheet that compares values</summary><${Sheet} send=${() => send(top.current, "grid")} /></details>
    <div class="go">
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <button class="primary" onClick=${() => send(top.current, "painting")}>Paint</button>
      <${Sure} text="Start over" sure="Empty the form?" run=${() => edit(emptyForm())} />
    </div>
  </section>`;
}

async function send(top, kind) {
  const wrong = top.querySelector(":invalid");
  if (wrong) {
    for (let it = wrong.closest("details"); it; it = it.parentElement.closest("details")) it.open = true;
    return wrong.reportValidity();
  }
  try {
    addJob(await post("/api/jobs", asked(studio.form, studio.recipe, kind)));
    change({ shown: null, problem: null });
    document.querySelector(".stage").scrollIntoView();
  } catch (error) {
    change({ problem: error.message });
  }
}

function Preset() {
  const { form, recipe } = useStudio();
  return html`<div class="knob"><label for="preset">Preset</label>
    <select id="preset" value=${form.preset} onChange=${(event) => edit({ preset: event.target.value })} aria-describedby="preset-about">
      <${Options} names=${Object.keys(recipe.presets)} /></select>
    <p class="hint" id="preset-about">${recipe.presets_about[form.preset]}</p></div>`;
}

function Group({ name, fields }) {
  if (!fields.length) return null;
  const changed = fields.filter((it) => it.name in studio.form.knobs).length;
  return html`<details class="group"><summary>${name}${changed > 0 && html` <span class="mark">${changed} changed</span>`}</summary>
    ${fields.map((it) => html`<${Knob} key=${it.name} field=${it} />`)}</details>`;
}

export function setKnob(name, value, usual) {
  const { [name]: _, ...others } = studio.form.knobs;
  edit({ knobs: value === usual ? others : { ...others, [name]: value } });
}

// One knob: its name, what it stands at, what it does, and whether it was changed.
function Knob({ field }) {
  const { form, recipe } = useStudio(), { name } = field;
  const ofNet = name.endsWith("_layers") && form.knobs.net; // another net has other layers
  const usual = ofNet ? "" : standard(recipe, form.preset, field), isChanged = name in form.knobs, id = `knob-${name}`;
  const put = (value) => setKnob(name, value, field.kind === "bool" ? usual : typed(usual));
  const value = isChanged ? form.knobs[name] : usual;
  const isShort = name !== "beta" && ["int", "float", "bool", "choice"].includes(field.kind);
  return html`<div class="knob ${isChanged ? "changed" : ""} ${isShort ? "short" : ""}">
    <label for=${id} title=${name}>${label(name)}${isChanged && html` <span class="mark">changed</span>`}</label>
    <${Entry} field=${field} id=${id} value=${value} usual=${usual} put=${put} />
    ${name === "init" && value === "picture" && html`<${StartPicture} />`}
    <p class="hint" id="${id}-about">${sentence(field.description)} ${typed(usual) !== "" && `Usual: ${typed(usual)}.`}
      ${isChanged && html` <button onClick=${() => put(field.kind === "bool" ? usual : typed(usual))} aria-label="Reset ${label(name)}">Reset</button>`}</p>
  </div>`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function Entry({ field, id, value, usual, put }) {
  const { kind, minimum, maximum, above, choices } = field, about = { id, "aria-describedby": `${id}-about` };
  if (kind === "bool") return html`<input type="checkbox" ...${about} checked=${value} onChange=${(event) => put(event.target.checked)} />`;
  if (kind === "choice") {
    return html`<select ...${about} value=${value} onChange=${(event) => put(event.target.value)}><${Options} names=${choices} /></select>`;
  }
  if (kind !== "int" && kind !== "float") {
    return html`<input type="text" spellcheck="false" autocomplete="off" placeholder=${usual === "" ? "as usual" : undefined} ...${about} value=${typed(value)} onInput=${(event) => put(event.target.value)} />`;
  }
  const input = (event) => {
    event.target.setCustomValidity(above !== null && Number(event.target.value) <= above ? `Must be above ${above}.` : "");
    put(event.target.value);
  };
  return html`<span class="number">
    ${field.name === "beta" && usual > 0 && html`<${LogSlider} name=${label(field.name)} value=${Number(value)} usual=${usual} put=${(it) => put(typed(it))} />`}
    <input type="number" required step=${kind === "int" ? 1 : "any"} min=${minimum} max=${maximum} ...${about} value=${typed(value)} onInput=${input} /></span>`;
}

// From a hundredth of the usual value to a hundredfold; every fifth of the way tells as much as the others.
export function LogSlider({ name, value, usual, put }) {
  const at = value > 0 ? Math.log10(value / usual) : -2;
  return html`<input type="range" min="-2" max="2" step="0.05" aria-label="${name}, slider" aria-valuetext=${typed(value)} value=${at}
    onInput=${(event) => put(Number((usual * 10 ** Number(event.target.value)).toPrecision(3)))} />`;
}

function StartPicture() {
  const { form } = useStudio(), picture = pictureOf(form.start);
  return html`<${Drop} title="Start from" hint="Drop the picture to start from." place="start">
    ${picture && html`<figure><img src=${pictureUrl(picture.id, "small")} alt="" /><figcaption>${picture.name}</figcaption></figure>`}<//>`;
}

export const partName = ({ part, key }) => (part === "units" ? `unit ${key}` : part === "pairs" ? `units ${key.replace("&", " & ")}` : key);

// What was marked in the lens, in words.
function StyleEdit() {
  const { form } = useStudio(), now = form.knobs.style_edit, lines = editLines(now);
  if (!lines.length) return null;
  const put = (next) => setKnob("style_edit", Object.keys(next).length ? next : undefined);
  return html`<section class="knob changed" aria-label="Changes to the style"><h3>Changes to the style</h3>
    <ul class="lines">${lines.map((it) => html`<li key="${it.layer}${it.part}${it.key}"><span>${it.layer}, ${partName(it)}: ${it.said ?? `${typed(it.gain)} times as much`}${it.weight !== undefined && it.weight !== 1 && `, weight ${typed(it.weight)}`}</span>
      <button onClick=${() => put(withoutLine(now, it))} aria-label="Remove the change of ${it.layer}, ${partName(it)}">Remove</button></li>`)}</ul></section>`;
}

// A sheet: a knob and its values down, another across.

function Sheet({ send: sendSheet }) {
  const { form } = useStudio(), { rows, columns } = form;
  return html`<p class="hint">Paints one painting for each pair of values and lays them side by side. Leave one of the two empty for a single row.</p>
    <${Axis} name="rows" title="Down" axis=${rows} /><${Axis} name="columns" title="Across" axis=${columns} />
    <button class="primary" disabled=${!rows.values.length && !columns.values.length} onClick=${sendSheet}>Paint the sheet</button>`;
}

const OTHER_AXES = { ratio: "photograph against style (alpha/beta)", contents: "photographs", styles: "paintings" };

function Axis({ name, title, axis }) {
  const { recipe } = useStudio(), put = (parts) => edit({ [name]: { ...axis, ...parts } });
  const knobs = recipe.fields.filter((it) => !["edit", "regions", "picture"].includes(it.kind) && it.name !== "preset");
  return html`<fieldset class="knob"><legend>${title}</legend>
    <select aria-label="${title}: what differs" value=${axis.knob} onChange=${(event) => put({ knob: event.target.value, values: [] })}>
      <option value="">nothing</option>
      ${Object.entries(OTHER_AXES).map(([it, text]) => html`<option key=${it} value=${it}>${text}</option>`)}
      ${knobs.map((it) => html`<option key=${it.name} value=${it.name}>${label(it.name)} (${it.name})</option>`)}</select>
    ${axis.knob in { contents: 1, styles: 1 } ? html`<${AxisPictures} title=${title} values=${axis.values} put=${(values) => put({ values })} />`
      : axis.knob && html`<input type="text" aria-label="${title}: the values" placeholder="values, as 5 15 50" defaultValue=${axis.values.join(" ")} key=${axis.knob}
        onInput=${(event) => put({ values: event.target.value.split(/\s+/).filter(Boolean) })} />`}
  </fieldset>`;
}

function AxisPictures({ title, values, put }) {
  const { pictures } = useStudio();
  const flip = (id) => put(values.includes(id) ? values.filter((it) => it !== id) : [...values, id]);
  return html`<div class="choose" role="group" aria-label="${title}: the pictures">${pictures.map((it) => html`
    <button key=${it.id} aria-pressed=${values.includes(it.id)} onClick=${() => flip(it.id)}><img src=${pictureUrl(it.id, "small")} alt=${it.name} title=${it.name} loading="lazy" /></button>`)}</div>`;
}

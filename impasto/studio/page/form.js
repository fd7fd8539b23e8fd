// The form: pictures, preset, knobs. Its knobs come from the studio's recipe, with their bounds, defaults and descriptions.

import { html, useRef } from "./vendor/htm-preact.js";
import { post } from "./api.js";
import { addJob, change, edit, studio, useStudio } from "./state.js";
import { GROUPS, PLACED, asked, changesInWords, editLines, emptyForm, label, partName, standard, typed, withoutLine } from "./recipe.js";
import { Choose, Select, Sure, given, givenNumber } from "./controls.js";
import { Paintings, Photograph, StartPicture } from "./pictures.js";
import { Regions } from "./regions.js";

export function Form() {
  const { form, recipe, problem } = useStudio(), top = useRef(null), count = Object.keys(form.knobs).length;
  const listed = recipe.fields.filter((it) => !PLACED.includes(it.name)), of = (group) => listed.filter((it) => it.group === group);
  return html`<section class="form" ref=${top} aria-label="What to paint">
    <h2 class="unseen">What to paint</h2>
    <div class="sources"><${Photograph} /><${Paintings} /></div>
    <${Preset} />
    ${of("main").map((it) => html`<${Knob} key=${it.name} field=${it} />`)}
    <${StyleEdit} />
    <${Changes} />
    <details><summary>Regions and protection</summary><${Regions} /></details>
    <details><summary>All settings</summary>
      ${count > 0 && html`<p class="hint">${count === 1 ? "1 setting differs" : `${count} settings differ`} from the preset.
        <button onClick=${() => edit({ knobs: {} })}>Reset all</button></p>`}
      ${Object.entries(GROUPS).map(([group, name]) => html`<${Group} key=${group} name=${name} fields=${of(group)} />`)}
    </details>
    <details><summary>Compare values on a sheet</summary><${Sheet} paint=${() => send(top.current, "grid")} /></details>
    <div class="go">
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <button class="primary" onClick=${() => send(top.current, "painting")}>Paint</button>
      <${Sure} text="Start over" what="with an empty form" sure="Clear the form?" run=${() => edit(emptyForm())} />
    </div>
  </section>`;
}

export const showStage = () => document.querySelector(".stage > *").scrollIntoView();

async function send(top, kind) {
  const wrong = top.querySelector(`:invalid:not(fieldset${kind === "grid" ? "" : ", .axis"})`); // a sheet's values are for a sheet
  if (wrong) {
    for (let it = wrong.closest("details"); it; it = it.parentElement.closest("details")) it.open = true;
    return wrong.reportValidity();
  }
  try {
    addJob(await post("/api/jobs", asked(studio.form, studio.recipe, kind)));
    change({ shown: null, problem: null });
    showStage();
  } catch (error) {
    change({ problem: error.message });
  }
}

function Preset() {
  const { form, recipe } = useStudio();
  return html`<div class="knob"><label for="preset">Preset</label>
    <${Select} id="preset" aria-describedby="preset-about" value=${form.preset} choices=${Object.keys(recipe.presets)}
      put=${(preset) => edit({ preset })} />
    <p class="hint" id="preset-about">${recipe.presets_about[form.preset]}</p></div>`;
}

function Group({ name, fields }) {
  if (!fields.length) return null;
  const changed = fields.filter((it) => it.name in studio.form.knobs).length;
  return html`<details class="group"><summary>${name}${changed > 0 && html` <span class="mark">${changed} changed</span>`}</summary>
    ${fields.map((it) => html`<${Knob} key=${it.name} field=${it} />`)}</details>`;
}

// `usual` is the value that needs no mention.
function setKnob(name, value, usual) {
  const { [name]: _, ...others } = studio.form.knobs;
  edit({ knobs: value === usual ? others : { ...others, [name]: value } });
}

// One knob: its name, what it stands at, what it does, and whether it was changed.
function Knob({ field }) {
  const { form, recipe } = useStudio(), { name, kind } = field;
  const ofNet = name.endsWith("_layers") && form.knobs.net; // another net has other layers
  const usual = ofNet ? "" : standard(recipe, form.preset, field, form.knobs.quality), isChanged = name in form.knobs, id = `knob-${name}`;
  const asTyped = kind === "bool" ? usual : typed(usual), put = (value) => setKnob(name, value, asTyped);
  const value = isChanged ? form.knobs[name] : usual, isShort = name !== "beta" && ["int", "float", "bool", "choice"].includes(kind);
  return html`<div class="knob ${isChanged ? "changed" : ""} ${isShort ? "short" : ""}">
    <label for=${id} title=${name}>${label(name)}${isChanged && html` <span class="mark">changed</span>`}</label>
    <${Entry} field=${field} id=${id} value=${value} usual=${usual} put=${put} />
    ${name === "init" && value === "picture" && html`<${StartPicture} />`}
    <p class="hint" id="${id}-about">${sentence(field.description)} ${typed(usual) !== "" && `Default: ${typed(usual)}.`}
      ${isChanged && html` <button onClick=${() => put(asTyped)} aria-label="Reset ${label(name)}">Reset</button>`}</p>
  </div>`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function Entry({ field, id, value, usual, put }) {
  const { name, kind, choices } = field, about = { id, "aria-describedby": `${id}-about` };
  if (kind === "bool") return html`<input type="checkbox" ...${about} checked=${value} onChange=${(event) => put(event.target.checked)} />`;
  if (kind === "choice") return html`<${Select} ...${about} value=${value} choices=${choices} put=${put} />`;
  if (kind === "int" || kind === "float") {
    return html`<span class="number">
      ${name === "beta" && usual > 0 && html`<${LogSlider} name=${label(name)} value=${value} usual=${usual} put=${(it) => put(typed(it))} />`}
      <${NumberEntry} field=${field} about=${about} value=${value} put=${put} /></span>`;
  }
  return html`<input type="text" spellcheck="false" autocomplete="off" ...${about} value=${typed(value)}
    placeholder=${usual === "" ? "default" : undefined} onInput=${given(put)} />`;
}

export function NumberEntry({ field, about, value, put }) {
  const { kind, minimum, maximum, above } = field;
  const check = (event) => { // `above` itself is not allowed, which no attribute can say
    event.target.setCustomValidity(above !== null && Number(event.target.value) <= above ? `Must be above ${above}.` : "");
    put(event.target.value);
  };
  return html`<input type="number" required step=${kind === "int" ? 1 : "any"} min=${minimum} max=${maximum}
    ...${about} value=${typed(value)} onInput=${check} />`;
}

// From 1/100 of the default to 100 times the default, on a logarithmic scale.
export function LogSlider({ name, value, usual, put }) {
  const at = value > 0 ? Math.log10(value / usual) : -2;
  return html`<input type="range" min="-2" max="2" step="0.05" aria-label="${name}, slider" aria-valuetext=${typed(value)} value=${at}
    onInput=${givenNumber((it) => put(Number((usual * 10 ** it).toPrecision(3))))} />`;
}

// What was marked in the lens, in words.
function StyleEdit() {
  const { form } = useStudio(), now = form.knobs.style_edit, lines = editLines(now);
  if (!lines.length) return null;
  const put = (next) => setKnob("style_edit", Object.keys(next).length ? next : undefined);
  return html`<section class="knob changed" aria-label="Changes to the style"><h3>Changes to the style</h3>
    <ul class="lines">${lines.map((it) => html`<li key=${partName(it)}><span>${partName(it)}: ${it.said}</span>
      <button onClick=${() => put(withoutLine(now, it))} aria-label="Remove the change of ${partName(it)}">Remove</button></li>`)}</ul>
  </section>`;
}

// What changes on the way, as it did in the painting that the settings are from.
function Changes() {
  const { changes } = useStudio().form, lines = Object.entries(changes);
  if (!lines.length) return null;
  const remove = (i) => edit({ changes: Object.fromEntries(lines.filter(([it]) => it !== i)) });
  return html`<section class="knob changed" aria-label="Changes while painting"><h3>Changes while painting</h3>
    <ul class="lines">${lines.map(([i, knobs]) => html`<li key=${i}><span>From step ${i}: ${changesInWords(knobs)}</span>
      <button onClick=${() => remove(i)} aria-label="Remove the change from step ${i}">Remove</button></li>`)}</ul>
  </section>`;
}

// A sheet: a knob and its values down, another across.

function Sheet({ paint }) {
  const { rows, columns } = studio.form;
  return html`
    <p class="hint">One painting for each pair of values. Leave rows or columns empty for a single row or column.</p>
    <${Axis} name="rows" title="Rows" axis=${rows} /><${Axis} name="columns" title="Columns" axis=${columns} />
    <button class="primary" disabled=${!rows.values.length && !columns.values.length} onClick=${paint}>Paint the sheet</button>`;
}

const OTHER_AXES = [["", "nothing"], ["ratio", "content/style ratio (alpha/beta)"], ["contents", "photographs"], ["styles", "styles"]];

function Axis({ name, title, axis }) {
  const { recipe } = useStudio(), { knob, values } = axis, put = (parts) => edit({ [name]: { ...axis, ...parts } });
  const knobs = recipe.fields.filter((it) => it.kind !== "edit").map((it) => [it.name, `${label(it.name)} (${it.name})`]);
  const ofPictures = knob === "contents" || knob === "styles", kind = recipe.fields.find((it) => it.name === knob)?.kind ?? "float";
  const between = ["int", "float", "choice", "bool"].includes(kind) ? /[\s,;]+/ : /\s+/; // other values may have commas in them
  const type = ({ target }) => {
    const those = target.value.split(between).filter(Boolean), isNumber = kind === "int" || kind === "float";
    const wrong = isNumber && those.find((it) => !Number.isFinite(Number(it)));
    target.setCustomValidity(wrong ? `“${wrong}” is not a number.` : "");
    put({ values: those });
  };
  return html`<fieldset class="knob"><legend>${title}</legend>
    <${Select} aria-label="${title}: what differs" value=${knob} choices=${[...OTHER_AXES, ...knobs]}
      put=${(it) => put({ knob: it, values: [] })} />
    ${ofPictures && html`<${Choose} title="${title}: the pictures" chosen=${values} put=${(it) => put({ values: it })} />`}
    ${knob && !ofPictures && html`<input key=${knob} type="text" class="axis" aria-label="${title}: the values" placeholder="values, as 5 15 50"
      defaultValue=${values.join(" ")} onInput=${type} />`}
  </fieldset>`;
}

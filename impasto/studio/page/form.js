// The form: pictures, preset, knobs. Its knobs come from the studio's recipe, with their bounds, defaults and descriptions.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { post } from "./api.js";
import { addJob, change, edit, studio, useStudio } from "./state.js";
import { GROUPS, PLACED, changesInWords, choiceName, defaultOf, editLines, emptyForm, label, partName, requestOf, typed, withoutLine } from "./recipe.js";
import { Choose, Select, Sure, withValue, withNumber } from "./controls.js";
import { seconds } from "./jobs.js";
import { Paintings, Photograph, StartPicture } from "./pictures.js";
import { Regions } from "./regions.js";

export function Form() {
  const { form, recipe, problem } = useStudio(), top = useRef(null), count = Object.keys(form.knobs).length;
  useEffect(() => {
    const key = (event) => {
      if (event.key !== "Enter" || event.repeat || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      send(top.current, "painting");
    };
    document.addEventListener("keydown", key);
    return () => document.removeEventListener("keydown", key);
  }, []);
  const listed = recipe.fields.filter((field) => !PLACED.includes(field.name)), of = (group) => listed.filter((field) => field.group === group);
  return html`<section class="form" ref=${top} aria-label="What to paint">
    <h2 class="unseen">What to paint</h2>
    <div class="sources"><${Photograph} /><${Paintings} /></div>
    <${Preset} />
    ${of("main").map((field) => html`<${Knob} key=${field.name} field=${field} />`)}
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
      <${Estimate} />
      <button class="primary" title="Ctrl + Enter" onClick=${() => send(top.current, "painting")}>Paint</button>
      <${Sure} text="Start over" what="with an empty form" sure="Clear the form?" run=${() => edit(emptyForm())} />
    </div>
  </section>`;
}

export const showStage = () => document.querySelector(".stage > *").scrollIntoView();

async function send(top, kind) {
  const wrong = top.querySelector(`:invalid:not(fieldset${kind === "grid" ? "" : ", .axis"})`); // a painting does not use the values of a sheet
  if (wrong) {
    for (let details = wrong.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
    return wrong.reportValidity();
  }
  try {
    addJob(await post("/api/jobs", requestOf(studio.form, studio.recipe, kind)));
    change({ shown: null, problem: null });
    showStage();
  } catch (error) {
    change({ problem: error.message });
  }
}

// How long Paint will take, from the newest painting of the same kind: the time grows with the pixels.
function Estimate() {
  const { form, recipe, jobs } = useStudio(), of = (name) => form.knobs[name] ?? defaultOf(recipe, form.preset, recipe.fields.find((field) => field.name === name));
  const isAlike = ({ kind, state, result }) => kind === "painting" && state === "finished" && result?.seconds > 1
    && ["quality", "net", "preset"].every((name) => result.recipe[name] === (name === "preset" ? form.preset : of(name)));
  const last = jobs.find(isAlike);
  if (!last) return null;
  const left = last.result.seconds * (Number(of("size")) / last.result.recipe.size) ** 2;
  return html`<p class="hint">About ${seconds(left)}${last.result.peak_memory_mb ? `; the last one of its kind took up to ${Math.round(last.result.peak_memory_mb)} MB` : ""}.</p>`;
}

function Preset() {
  const { form, recipe } = useStudio();
  return html`<div class="knob"><label for="preset">Preset</label>
    <${Select} id="preset" aria-describedby="preset-about" value=${form.preset} choices=${Object.keys(recipe.presets).map((name) => [name, recipe.presets_titles[name]])}
      onChange=${(preset) => edit({ preset })} />
    <p class="hint" id="preset-about">${recipe.presets_about[form.preset]}</p></div>`;
}

function Group({ name, fields }) {
  if (!fields.length) return null;
  const changed = fields.filter((field) => field.name in studio.form.knobs).length;
  return html`<details class="group"><summary>${name}${changed > 0 && html` <span class="mark">${changed} changed</span>`}</summary>
    ${fields.map((field) => html`<${Knob} key=${field.name} field=${field} />`)}</details>`;
}

// A knob at its `defaultValue` is not stored.
function setKnob(name, value, defaultValue) {
  const { [name]: _, ...others } = studio.form.knobs;
  edit({ knobs: value === defaultValue ? others : { ...others, [name]: value } });
}

// One knob: its name, value and description, and whether it was changed.
function Knob({ field }) {
  const { form, recipe } = useStudio(), { name, kind } = field;
  const ofNet = name.endsWith("_layers") && form.knobs.net; // another net has other layers
  const defaultValue = ofNet ? "" : defaultOf(recipe, form.preset, field, form.knobs.quality), isChanged = name in form.knobs, id = `knob-${name}`;
  const asTyped = kind === "bool" ? defaultValue : typed(defaultValue), setValue = (value) => setKnob(name, value, asTyped);
  const [explains, setExplains] = useState(false), value = isChanged ? form.knobs[name] : defaultValue, isShort = name !== "beta" && ["int", "float", "bool", "choice"].includes(kind);
  return html`<div class="knob ${isChanged ? "changed" : ""} ${isShort ? "short" : ""}">
    <span class="named"><label for=${id} title=${name}>${label(name)}</label>
      <button class="why" aria-expanded=${explains} aria-label="What is ${label(name)}?" onClick=${() => setExplains(!explains)}>?</button>
      ${isChanged && html`<span class="mark">changed</span> <button class="why" onClick=${() => setValue(asTyped)} aria-label="Reset ${label(name)}">Reset</button>`}</span>
    <${Entry} field=${field} id=${id} value=${value} defaultValue=${defaultValue} onChange=${setValue} />
    ${name === "init" && value === "picture" && html`<${StartPicture} />`}
    <p class="hint ${explains ? "" : "unseen"}" id="${id}-about">${sentence(field.description)} ${typed(defaultValue) !== "" && `Default: ${typed(defaultValue)}.`}</p>
  </div>`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function Entry({ field, id, value, defaultValue, onChange }) {
  const { name, kind, choices } = field, about = { id, "aria-describedby": `${id}-about` };
  if (kind === "bool") return html`<input type="checkbox" ...${about} checked=${value} onChange=${(event) => onChange(event.target.checked)} />`;
  if (kind === "choice") return html`<${Select} ...${about} value=${value} choices=${choices.map((choice) => [choice, choiceName(name, choice)])} onChange=${onChange} />`;
  if (kind === "int" || kind === "float") {
    return html`<span class="number">
      ${name === "beta" && defaultValue > 0 && html`<${LogSlider} name=${label(name)} value=${value} defaultValue=${defaultValue} onChange=${(next) => onChange(typed(next))} />`}
      <${NumberEntry} field=${field} about=${about} value=${value} onChange=${onChange} /></span>`;
  }
  return html`<input type="text" spellcheck="false" autocomplete="off" ...${about} value=${typed(value)}
    placeholder=${defaultValue === "" ? "default" : undefined} onInput=${withValue(onChange)} />`;
}

export function NumberEntry({ field, about, value, onChange }) {
  const { kind, minimum, maximum, above } = field;
  const check = (event) => { // `above` itself is not allowed, which no attribute can say
    event.target.setCustomValidity(above !== null && Number(event.target.value) <= above ? `Must be above ${above}.` : "");
    onChange(event.target.value);
  };
  return html`<input type="number" required step=${kind === "int" ? 1 : "any"} min=${minimum} max=${maximum}
    ...${about} value=${typed(value)} onInput=${check} />`;
}

// From 1/100 of the default to 100 times the default, on a logarithmic scale.
export function LogSlider({ name, value, defaultValue, onChange }) {
  const at = value > 0 ? Math.log10(value / defaultValue) : -2;
  return html`<input type="range" min="-2" max="2" step="0.05" aria-label="${name}, slider" aria-valuetext=${typed(value)} value=${at}
    onInput=${withNumber((exponent) => onChange(Number((defaultValue * 10 ** exponent).toPrecision(3))))} />`;
}

// The style edit made in the lens, in words.
function StyleEdit() {
  const { form } = useStudio(), now = form.knobs.style_edit, lines = editLines(now);
  if (!lines.length) return null;
  const update = (next) => setKnob("style_edit", Object.keys(next).length ? next : undefined);
  return html`<section class="knob changed" aria-label="Changes to the style"><h3>Changes to the style</h3>
    <ul class="lines">${lines.map((line) => html`<li key=${partName(line)}><span>${partName(line)}: ${line.text}</span>
      <button onClick=${() => update(withoutLine(now, line))} aria-label="Remove the change of ${partName(line)}">Remove</button></li>`)}</ul>
  </section>`;
}

// The changes while painting, copied from the painting whose settings these are.
function Changes() {
  const { changes } = useStudio().form, lines = Object.entries(changes);
  if (!lines.length) return null;
  const remove = (i) => edit({ changes: Object.fromEntries(lines.filter(([step]) => step !== i)) });
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
  const { recipe } = useStudio(), { knob, values } = axis, update = (parts) => edit({ [name]: { ...axis, ...parts } });
  const knobs = recipe.fields.filter((field) => field.kind !== "edit").map((field) => [field.name, `${label(field.name)} (${field.name})`]);
  const ofPictures = knob === "contents" || knob === "styles", kind = recipe.fields.find((field) => field.name === knob)?.kind ?? "float";
  const between = ["int", "float", "choice", "bool"].includes(kind) ? /[\s,;]+/ : /\s+/; // other values may have commas in them
  const type = ({ target }) => {
    const words = target.value.split(between).filter(Boolean), isNumber = kind === "int" || kind === "float";
    const wrong = isNumber && words.find((word) => !Number.isFinite(Number(word)));
    target.setCustomValidity(wrong ? `“${wrong}” is not a number.` : "");
    update({ values: words });
  };
  return html`<fieldset class="knob"><legend>${title}</legend>
    <${Select} aria-label="${title}: what differs" value=${knob} choices=${[...OTHER_AXES, ...knobs]}
      onChange=${(next) => update({ knob: next, values: [] })} />
    ${ofPictures && html`<${Choose} title="${title}: the pictures" chosen=${values} onChange=${(ids) => update({ values: ids })} />`}
    ${knob && !ofPictures && html`<input key=${knob} type="text" class="axis" aria-label="${title}: the values" placeholder="values, as 5 15 50"
      defaultValue=${values.join(" ")} onInput=${type} />`}
  </fieldset>`;
}

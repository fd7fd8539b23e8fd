// Parts of the photograph: what is to stay recognisable, and regions that are painted each in its own way.

import { html, useState } from "./vendor/htm-preact.js";
import { edit, pictureOf, useStudio } from "./state.js";
import { MaskDialog } from "./mask.js";
import { Options } from "./pictures.js";

const MADE = {
  light: "where it is light", dark: "where it is dark", rest: "the rest",
  ...Object.fromEntries([2, 3, 4].flatMap((of) => Array.from({ length: of }, (_, n) => [`k-means ${n + 1} of ${of}`, `by colour, part ${n + 1} of ${of} from dark to light`]))),
};

// A mask by name or painted: `value` is "", one of MADE or the id of a picture.
function Mask({ title, value, put, none }) {
  const { form } = useStudio(), [painting, paint] = useState(false), painted = value && !(value in MADE);
  return html`<span class="mask"><select aria-label=${title} value=${painted ? "painted" : value} onChange=${(event) => (event.target.value === "painted" ? paint(true) : put(event.target.value))}>
      ${none && html`<option value="">${none}</option>`}
      <option value="painted">${painted ? "as painted" : "paint it yourself"}</option>
      ${Object.entries(MADE).map(([it, text]) => html`<option key=${it} value=${it}>${text}</option>`)}</select>
    <button disabled=${!pictureOf(form.content)} onClick=${() => paint(true)} aria-label="Paint the mask: ${title}">${painted ? "Change the mask" : "Paint the mask"}</button>
    ${painting && html`<${MaskDialog} title=${title} picture=${pictureOf(form.content)} mask=${painted ? value : null} close=${() => paint(false)} saved=${put} />`}</span>`;
}

export function Regions() {
  const { form } = useStudio(), { regions } = form;
  const put = (n, parts) => edit({ regions: regions.map((it, k) => (k === n ? { ...it, ...parts } : it)) });
  const add = () => edit({ regions: [...regions, { name: `part ${regions.length + 1}`, mask: regions.length ? "rest" : "light" }] });
  return html`${!pictureOf(form.content) && html`<p class="hint">Choose a photograph first: masks are painted over it.</p>`}
    <div class="knob"><span class="label">Keep recognisable</span><${Mask} title="Keep recognisable" value=${form.protect} none="nothing in particular" put=${(protect) => edit({ protect })} />
      <p class="hint">A face, for instance: it is brushed more lightly and in its own colours.</p></div>
    ${regions.map((it, n) => html`<${Region} key=${n} region=${it} put=${(parts) => put(n, parts)} remove=${() => edit({ regions: regions.filter((_, k) => k !== n) })} />`)}
    <button onClick=${add}>Add a part with its own style</button>`;
}

const NUMBERS = { style_weight: ["Style", 1, "how much the painting counts here"], content_weight: ["Photograph", 1, "how much the photograph counts here"], feather: ["Soft edge", 0.01, "width of the soft edge over the longer side"] };

function Region({ region, put, remove }) {
  const { form, recipe } = useStudio(), { name } = region, colors = recipe.fields.find((it) => it.name === "color").choices;
  return html`<fieldset class="region"><legend>${name}</legend>
    <label>Name <input type="text" required value=${name} onInput=${(event) => put({ name: event.target.value })} /></label>
    <${Mask} title="Mask of ${name}" value=${region.mask} put=${(mask) => put({ mask })} />
    <label>Painted like <select value=${region.style ?? ""} onChange=${(event) => put({ style: event.target.value })}><option value="">all paintings</option>
      ${form.styles.map((it, n) => html`<option key=${n} value=${n + 1}>${n + 1}: ${pictureOf(it.id)?.name}</option>`)}</select></label>
    <label>Colours <select value=${region.color ?? ""} onChange=${(event) => put({ color: event.target.value })}><option value="">as everywhere</option><${Options} names=${colors} /></select></label>
    <div class="three">${Object.entries(NUMBERS).map(([key, [text, usual, about]]) => html`<label key=${key} title=${about}>${text}
      <input type="number" min="0" max=${key === "feather" ? 0.5 : undefined} step="any" required value=${region[key] ?? usual} onInput=${(event) => put({ [key]: event.target.value })} /></label>`)}</div>
    <button onClick=${remove} aria-label="Remove ${name}">Remove</button></fieldset>`;
}

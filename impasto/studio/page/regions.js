// Parts of the photograph: what is to stay recognisable, and regions that are painted each in its own way.

import { html, useState } from "./vendor/htm-preact.js";
import { edit, pictureOf, useStudio } from "./state.js";
import { Select, given } from "./controls.js";
import { MaskDialog } from "./mask.js";

const MADE = { light: "light areas", dark: "dark areas", rest: "all other areas" };
for (const of of [2, 3, 4]) {
  for (let n = 1; n <= of; n++) MADE[`k-means ${n} of ${of}`] = `by colour, ${n} of ${of} (dark to light)`;
}

// A mask by name or painted over a picture: `value` is "", one of MADE or the id of a picture.
function Mask({ title, value, put, none, over }) {
  const [painting, paint] = useState(false), painted = value && !(value in MADE);
  const choices = [...(none ? [["", none]] : []), ["painted", painted ? "painted by hand" : "paint by hand"], ...Object.entries(MADE)];
  return html`<span class="mask">
    <${Select} aria-label=${title} value=${painted ? "painted" : value} choices=${choices}
      put=${(it) => (it === "painted" ? paint(true) : put(it))} />
    <button disabled=${!over} onClick=${() => paint(true)} aria-label="Paint the mask: ${title}">
      ${painted ? "Change the mask" : "Paint the mask"}</button>
    ${painting && over && html`<${MaskDialog} title=${title} picture=${over} mask=${painted ? value : null}
      close=${() => paint(false)} saved=${put} />`}</span>`;
}

export function Regions() {
  const { form } = useStudio(), { regions } = form, photograph = pictureOf(form.content);
  const put = (n, parts) => edit({ regions: regions.map((it, k) => (k === n ? { ...it, ...parts } : it)) });
  const remove = (n) => edit({ regions: regions.filter((_, k) => k !== n) });
  const add = () => edit({ regions: [...regions, { name: `region ${regions.length + 1}`, mask: regions.length ? "rest" : "light" }] });
  return html`${!form.content && html`<p class="hint">Choose a photograph first: you paint masks over it.</p>`}
    <div class="knob"><span class="label">Protect</span>
      <${Mask} title="Protect" value=${form.protect} none="nothing" over=${photograph} put=${(protect) => edit({ protect })} />
      <p class="hint">Keeps an area recognisable, for example a face: weaker style, original colours.</p></div>
    ${regions.map((it, n) => html`<${Region} key=${n} region=${it} put=${(parts) => put(n, parts)} remove=${() => remove(n)} />`)}
    <button onClick=${add}>Add a region with its own style</button>`;
}

const NUMBERS = {
  style_weight: ["Style", 1, "weight of the style here"],
  content_weight: ["Photograph", 1, "weight of the photograph here"],
  feather: ["Soft edge", 0.01, "width of the soft edge, as a fraction of the photograph's longer side; at most 0.5"],
};

function Region({ region, put, remove }) {
  const { form, recipe } = useStudio(), { name } = region;
  const paintings = form.styles.map((it, n) => [n + 1, `${n + 1}: ${pictureOf(it.id)?.name}`]);
  const only = form.styles[form.styles.length === 1 ? 0 : region.style - 1]; // the one painting that it is painted like
  const colors = recipe.fields.find((it) => it.name === "color").choices;
  return html`<fieldset class="region"><legend>${name}</legend>
    <label>Name <input type="text" required value=${name} onInput=${given((it) => put({ name: it }))} /></label>
    <${Mask} title="Mask of ${name}" value=${region.mask} over=${pictureOf(form.content)} put=${(mask) => put({ mask })} />
    <label>Style
      <${Select} value=${region.style ?? ""} choices=${[["", "all styles"], ...paintings]} put=${(style) => put({ style, style_mask: "" })} /></label>
    ${only && html`<span class="label">Part of the style picture</span>
      <${Mask} title="Part of the style picture for ${name}" value=${region.style_mask ?? ""} none="all of it" over=${pictureOf(only.id)}
        put=${(mask) => put({ style_mask: mask })} />`}
    <label>Colours
      <${Select} value=${region.color ?? ""} choices=${[["", "as everywhere"], ...colors]} put=${(color) => put({ color })} /></label>
    <div class="three">${Object.entries(NUMBERS).map(([key, [text, usual, about]]) => html`<label key=${key} title=${about}>${text}
      <input type="number" min="0" max=${key === "feather" ? 0.5 : undefined} step="any" required value=${region[key] ?? usual}
        onInput=${given((it) => put({ [key]: it }))} /></label>`)}</div>
    <button onClick=${remove} aria-label="Remove ${name}">Remove</button></fieldset>`;
}

// Parts of the photograph: the protected area, and regions with their own style, weights and colours.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { pictureUrl } from "./api.js";
import { edit, pictureOf, useStudio } from "./state.js";
import { Select, withValue } from "./controls.js";
import { MaskDialog } from "./mask.js";
import { maskUrl } from "./live.js";

const GENERATED = { light: "light areas", dark: "dark areas", rest: "all other areas" };
for (const of of [2, 3, 4]) {
  for (let n = 1; n <= of; n++) GENERATED[`k-means ${n} of ${of}`] = `by colour, ${n} of ${of} (dark to light)`;
}

// A generated or painted mask: `value` is "", a key of GENERATED, or the id of a picture. What it leaves out is dark.
function Mask({ title, value, onChange, none, over }) {
  const [painting, setPainting] = useState(false), painted = value && !(value in GENERATED), [url, setUrl] = useState(null);
  useEffect(() => {
    let isNewest = true;
    setUrl(undefined); // until it is known
    maskUrl(over, value).catch(() => null).then((found) => { if (isNewest) setUrl(found); });
    return () => { isNewest = false; };
  }, [over?.id, value]);
  const choices = [...(none ? [["", none]] : []), ["painted", painted ? "painted by hand" : "paint by hand"], ...Object.entries(GENERATED)];
  return html`<span class="mask">
    <${Select} aria-label=${title} value=${painted ? "painted" : value} choices=${choices}
      onChange=${(next) => (next === "painted" ? setPainting(true) : onChange(next))} />
    <button disabled=${!over || url === undefined} onClick=${() => setPainting(true)} aria-label="Paint the mask: ${title}">
      ${painted ? "Change the mask" : "Paint the mask"}</button>
    ${url && over && html`<span class="masked"><img src=${pictureUrl(over.id, "small")} alt="" /><img src=${url} alt="The mask over ${over.name}" /></span>`}
    ${painting && over && html`<${MaskDialog} title=${title} picture=${over} mask=${url}
      close=${() => setPainting(false)} saved=${onChange} />`}</span>`;
}

export function Regions() {
  const { form } = useStudio(), { regions } = form, photograph = pictureOf(form.content);
  const update = (n, parts) => edit({ regions: regions.map((region, k) => (k === n ? { ...region, ...parts } : region)) });
  const remove = (n) => edit({ regions: regions.filter((_, k) => k !== n) });
  const unused = (n) => (regions.some(({ name }) => name === `region ${n}`) ? unused(n + 1) : `region ${n}`);
  const add = () => edit({ regions: [...regions, { name: unused(regions.length + 1), mask: regions.length ? "rest" : "light" }] });
  return html`${!form.content && html`<p class="hint">Choose a photograph first: you paint masks over it.</p>`}
    <div class="knob"><span class="label">Protect</span>
      <${Mask} title="Protect" value=${form.protect} none="nothing" over=${photograph} onChange=${(protect) => edit({ protect })} />
      <p class="hint">Keeps an area recognisable, for example a face: weaker style, original colours.</p></div>
    ${regions.map((region, n) => html`<${Region} key=${n} region=${region} onChange=${(parts) => update(n, parts)} remove=${() => remove(n)} />`)}
    <button onClick=${add}>Add a region with its own style</button>`;
}

const NUMBERS = {
  style_weight: ["Style", 1, "weight of the style here"],
  content_weight: ["Photograph", 1, "weight of the photograph here"],
  feather: ["Soft edge", 0.01, "width of the soft edge, as a fraction of the photograph's longer side; at most 0.5"],
};

function Region({ region, onChange, remove }) {
  const { form, recipe } = useStudio(), { name } = region;
  const paintings = form.styles.map((style, n) => [n + 1, `${n + 1}: ${pictureOf(style.id)?.name}`]);
  const only = form.styles[form.styles.length === 1 ? 0 : region.style - 1]; // the only style picture of the region
  const colors = recipe.fields.find((field) => field.name === "color").choices;
  return html`<fieldset class="region"><legend>${name}</legend>
    <label>Name <input type="text" required value=${name} onInput=${withValue((next) => onChange({ name: next }))} /></label>
    <${Mask} title="Mask of ${name}" value=${region.mask} over=${pictureOf(form.content)} onChange=${(mask) => onChange({ mask })} />
    <label>Style
      <${Select} value=${region.style ?? ""} choices=${[["", "all styles"], ...paintings]} onChange=${(style) => onChange({ style, style_mask: "" })} /></label>
    ${only && html`<span class="label">Part of the style picture</span>
      <${Mask} title="Part of the style picture for ${name}" value=${region.style_mask ?? ""} none="all of it" over=${pictureOf(only.id)}
        onChange=${(mask) => onChange({ style_mask: mask })} />`}
    <label>Colours
      <${Select} value=${region.color ?? ""} choices=${[["", "as everywhere"], ...colors]} onChange=${(color) => onChange({ color })} /></label>
    <div class="three">${Object.entries(NUMBERS).map(([key, [text, defaultValue, about]]) => html`<label key=${key} title=${about}>${text}
      <input type="number" min="0" max=${key === "feather" ? 0.5 : undefined} step="any" required value=${region[key] ?? defaultValue}
        onInput=${withValue((value) => onChange({ [key]: value }))} /></label>`)}</div>
    <button onClick=${remove} aria-label="Remove ${name}">Remove</button></fieldset>`;
}

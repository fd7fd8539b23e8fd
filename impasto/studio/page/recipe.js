// The form's data: the values of its knobs, and the request that it sends. Nothing here draws.

export const emptyForm = () => ({
  content: null, styles: [], start: null, // styles: [{id, weight}]
  preset: "impasto", knobs: {}, // the changed knobs; numbers as text
  protect: "", regions: [], // regions: [{name, mask, ...}]
  changes: {}, // while painting: {step: {knob: value}}
  rows: { knob: "", values: [] }, columns: { knob: "", values: [] },
});

// Knobs that have a place of their own in the form, and no line in its lists.
export const PLACED = ["preset", "style_weights", "style_edit", "regions", "protect", "changes"];

const LABELS = {
  beta: "Style strength", alpha: "Photograph strength", size: "Size", quality: "Quality", seed: "Seed", tv: "Smoothness", color: "Colours",
  style_scale: "Stroke size", lr: "Step size", init: "Start from", content_costs: "Content costs",
};
// What a painter calls a choice, with its name in the recipe.
const CHOICES = {
  color: {
    style: "the style's", luminance: "the photograph's, only light is painted", cholesky: "the photograph's, matched", pca: "the photograph's, matched by main axes",
    monge: "the photograph's, moved as little as possible", histogram: "the photograph's, in the same amounts",
  },
  init: { content: "the photograph", noise: "noise", picture: "a picture of your own", instant: "the instant picture" },
  seamless: { none: "no", x: "left to right", y: "top to bottom", both: "both ways" },
};
export const choiceName = (knob, value) => (CHOICES[knob]?.[value] ? `${CHOICES[knob][value]} (${value})` : value);

export const label = (name) => LABELS[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

export const GROUPS = {
  style: "Style", content: "Photograph", colour: "Colours", frame: "Shape and edges", start: "Start picture",
  descent: "Optimiser and scales", network: "Network",
};

// The default value of a knob for this preset; the numbers of steps also depend on the quality.
export function defaultOf(recipe, preset, field, quality = "standard") {
  return recipe.steps[preset]?.[quality]?.[field.name] ?? recipe.presets[preset]?.[field.name] ?? field.default;
}

const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));

// A value as text to type: {"gram": 1, "w2": 0.5} -> "gram=1,w2=0.5".
export function typed(value) {
  if (Array.isArray(value)) return value.map(short).join(",");
  if (value && typeof value === "object") return Object.entries(value).map(([name, part]) => `${name}=${short(part)}`).join(",");
  return value === null || value === undefined ? "" : short(value);
}

// A value as text to read; a table may contain tables: "sky: mask light, style 2; rest: mask rest".
export function inWords(value) {
  if (!isTable(value)) return typed(value);
  const parts = Object.entries(value).map(([name, part]) => [name, inWords(part), typeof part === "object"]).filter(([, text]) => text !== "");
  const holdsTables = parts.some(([, , nested]) => nested);
  return parts.map(([name, text, nested]) => `${name}${nested ? ":" : ""} ${text}`).join(holdsTables ? "; " : ", ");
}

const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
const isTable = (value) => value && typeof value === "object" && !Array.isArray(value);
const sorted = (value) => (isTable(value) ? Object.fromEntries(Object.entries(value).sort()) : value);

// The knobs of a whole recipe that differ from its preset's.
export function changed(whole, recipe) {
  const isOwn = (field) => field.name in whole && !same(whole[field.name], defaultOf(recipe, whole.preset, field, whole.quality));
  const differ = recipe.fields.filter(isOwn);
  return Object.fromEntries(differ.map((field) => [field.name, whole[field.name]]));
}

// A knob's value in a form or a job -> its value in a request.
export const requestValue = (field, value) => (isNumber(field) ? Number(value) : value);

const isNumber = (field) => field.kind === "int" || field.kind === "float";

// The request for a job. Throws an Error with a plain message if the form is incomplete.
export function requestOf(form, recipe, kind = "painting") {
  const gives = (axis) => [form.rows, form.columns].some((formAxis) => kind === "grid" && formAxis.knob === axis && formAxis.values.length);
  if (!form.content && form.preset !== "texture" && !gives("contents")) throw new Error("Choose a photograph first.");
  if (!form.styles.length && form.preset !== "inversion" && !gives("styles")) throw new Error("Choose a style first.");
  const twice = form.regions.find((region, n) => form.regions.findIndex((other) => other.name === region.name) < n);
  if (twice) throw new Error(`Two regions are called “${twice.name}”: rename one of them.`);
  const fields = Object.fromEntries(recipe.fields.map((field) => [field.name, field]));
  const knobs = Object.fromEntries(Object.entries(form.knobs).map(([name, value]) => [name, requestValue(fields[name], value)]));
  const weights = form.styles.map((style) => Number(style.weight));
  if (weights.some((weight) => weight !== weights[0])) knobs.style_weights = weights;
  if (form.styles.some(({ crop }) => crop) && !gives("styles")) {
    const others = (knobs.style_crop ?? defaultOf(recipe, form.preset, fields.style_crop)).split(";"); // one for all, or one for each
    knobs.style_crop = form.styles.map(({ crop }, n) => crop || (others[n] ?? others[0])).join(";");
  }
  const axis = ({ knob, values }) => (knob && values.length ? [knob, ...values] : []);
  return {
    kind, styles: form.styles.map((style) => style.id), preset: form.preset, knobs,
    ...(form.content && { content: form.content }),
    ...(form.start && form.knobs.init === "picture" && { start: form.start }),
    ...(form.protect && { protect: form.protect }),
    ...(Object.keys(form.changes).length && { changes: form.changes }),
    ...(form.regions.length && { regions: Object.fromEntries(form.regions.map(({ name, ...region }) => [name, regionRequest(region)])) }),
    ...(kind === "grid" && { rows: axis(form.rows), columns: axis(form.columns) }),
  };
}

const regionRequest = ({ mask, color, style_mask: styleMask, ...numbers }) => ({
  mask, ...(color && { color }), ...(styleMask && { style_mask: styleMask }),
  ...Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== "" && value !== null).map(([name, value]) => [name, Number(value)])),
});

// The knobs without those that belong to the style pictures, and the pictures with them: their weights, and boxes if there are any.
function ofStyles({ style_weights: weights, style_crop: crop, ...knobs }, ids) {
  const crops = crop?.includes(",") ? crop.split(";").map((part) => part.trim()) : [];
  return {
    knobs: crop && !crops.length ? { ...knobs, style_crop: crop } : knobs,
    styles: ids.map((id, n) => ({ id, weight: weights?.[n] ?? 1, crop: crops[n] ?? crops[0] ?? "" })),
  };
}

// The form from which a job was requested.
export function formOfJob(job) {
  const { styles = [], knobs = {}, regions = {}, rows = [], columns = [], ...rest } = job.asked;
  const axis = ([knob = "", ...values]) => ({ knob, values });
  return {
    ...emptyForm(), content: rest.content ?? null, start: rest.start ?? null, preset: rest.preset ?? "impasto", protect: rest.protect ?? "",
    changes: job.changes, ...ofStyles(knobs, styles),
    regions: Object.entries(regions).map(([name, region]) => ({ name, ...region })), rows: axis(rows), columns: axis(columns),
  };
}

// The form of a picture that Impasto painted. `masks` has the painted masks that are in the studio, by the name of their region.
export function fromRecord({ recipe: whole, content, styles, masks }, recipe) {
  const own = ofStyles(changed(whole, recipe), styles), { regions, protect, changes = {} } = whole;
  const mask = (value, name) => (isGenerated(value) ? value : masks[name] ?? "");
  return {
    ...emptyForm(), content, knobs: own.knobs, changes, preset: whole.preset in recipe.presets ? whole.preset : recipe.default,
    styles: own.styles.filter((style) => style.id),
    protect: mask(protect, "protected"),
    regions: Object.entries(regions ?? {}).map(([name, region]) => ({
      name, ...region, mask: mask(region.mask, name), style_mask: mask(region.style_mask, `${name}, style`),
    })).filter((region) => region.mask),
  };
}

const isGenerated = (mask) => /^(light|dark|rest|k-means \d+ of \d+)$/.test(mask);

export const changesInWords = (knobs) => Object.entries(knobs).map(([name, value]) => `${label(name)} ${inWords(value)}`).join(", ");

// A style edit as lines: [{layer, part: "units", "pairs" or null, key: "17", text: the change in words}].
export function editLines(styleEdit = {}) {
  return Object.entries(styleEdit).flatMap(([layer, { units = {}, pairs = {}, ...rest }]) => [
    ...Object.entries(units).map(([key, change]) => ({ layer, part: "units", key, text: changeInWords(change) })),
    ...Object.entries(pairs).map(([key, change]) => ({ layer, part: "pairs", key, text: changeInWords(change) })),
    ...Object.entries(rest).map(([key, change]) => ({ layer, part: null, key, text: inWords(change) })),
  ]);
}

function changeInWords(change) {
  const { gain = 1, weight = 1 } = typeof change === "number" ? { gain: change } : change;
  return `${short(gain)} times as much${weight === 1 ? "" : `, weight ${short(weight)}`}`;
}

export const partName = ({ layer, part, key }) => `${layer}${part ? "/" : ", "}${key}`; // like the addresses of the lens's pages

export function withoutLine(styleEdit, { layer, part, key }) {
  const copy = structuredClone(styleEdit);
  delete (part ? copy[layer][part] : copy[layer])[key];
  if (part && !Object.keys(copy[layer][part]).length) delete copy[layer][part];
  if (!Object.keys(copy[layer]).length) delete copy[layer];
  return copy;
}

export function withMarks(styleEdit = {}, marks) {
  const copy = structuredClone(styleEdit);
  for (const { layer, i, j, gain, weight } of marks) {
    const part = i === j ? "units" : "pairs", key = i === j ? `${i}` : `${i}&${j}`;
    copy[layer] ??= {};
    copy[layer][part] = { ...copy[layer][part], [key]: weight === 1 ? gain : { gain, weight } };
  }
  return copy;
}

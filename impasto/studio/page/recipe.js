// What a form holds, what its knobs stand at, and what is asked of the studio. Nothing here draws.

export const emptyForm = () => ({
  content: null, styles: [], start: null, // styles: [{id, weight}]
  preset: "impasto", knobs: {}, // only those that were changed; numbers as they were typed
  protect: "", regions: [], // regions: [{name, mask, ...}]
  changes: {}, // on the way: {step: {knob: value}}
  rows: { knob: "", values: [] }, columns: { knob: "", values: [] },
});

// Knobs that have a place of their own in the form, and no line in its lists.
export const PLACED = ["preset", "style_weights", "style_edit", "regions", "protect", "changes"];

const LABELS = {
  beta: "Style strength", alpha: "Photograph strength", size: "Size", quality: "Quality", seed: "Seed", tv: "Smoothness", color: "Colours",
  style_scale: "Stroke size", lr: "Step size", init: "Start from", content_costs: "Content costs",
};
export const label = (name) => LABELS[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

export const GROUPS = {
  style: "Style", content: "Photograph", colour: "Colours", frame: "Shape and edges", start: "Start picture",
  descent: "Optimiser and scales", network: "Network",
};

// The value that a knob has while nobody changes it: steps are those of the quality.
export function standard(recipe, preset, field, quality = "standard") {
  return recipe.steps[preset]?.[quality]?.[field.name] ?? recipe.presets[preset]?.[field.name] ?? field.default;
}

const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));

// A value as one types it: {"gram": 1, "w2": 0.5} -> "gram=1,w2=0.5".
export function typed(value) {
  if (Array.isArray(value)) return value.map(short).join(",");
  if (value && typeof value === "object") return Object.entries(value).map(([name, it]) => `${name}=${short(it)}`).join(",");
  return value === null || value === undefined ? "" : short(value);
}

// The same for reading, where a table may hold tables: "sky: mask light, style 2; rest: mask rest".
export function inWords(value) {
  if (!isTable(value)) return typed(value);
  const parts = Object.entries(value).map(([name, it]) => [name, inWords(it), typeof it === "object"]).filter(([, text]) => text !== "");
  const holdsTables = parts.some(([, , nested]) => nested);
  return parts.map(([name, text, nested]) => `${name}${nested ? ":" : ""} ${text}`).join(holdsTables ? "; " : ", ");
}

const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
const isTable = (value) => value && typeof value === "object" && !Array.isArray(value);
const sorted = (value) => (isTable(value) ? Object.fromEntries(Object.entries(value).sort()) : value);

// The knobs of a whole recipe that differ from its preset's.
export function changed(whole, recipe) {
  const isOwn = (it) => it.name in whole && !same(whole[it.name], standard(recipe, whole.preset, it, whole.quality));
  const differ = recipe.fields.filter(isOwn);
  return Object.fromEntries(differ.map((it) => [it.name, whole[it.name]]));
}

// What form or job holds of a knob -> what the studio takes.
export const taken = (field, value) => (isNumber(field) ? Number(value) : value);

const isNumber = (field) => field.kind === "int" || field.kind === "float";

// What the studio is asked for; throws with a plain sentence when the form lacks something.
export function asked(form, recipe, kind = "painting") {
  const gives = (axis) => [form.rows, form.columns].some((it) => kind === "grid" && it.knob === axis && it.values.length);
  if (!form.content && form.preset !== "texture" && !gives("contents")) throw new Error("Choose a photograph first.");
  if (!form.styles.length && form.preset !== "inversion" && !gives("styles")) throw new Error("Choose a style first.");
  const twice = form.regions.find((it, n) => form.regions.findIndex((other) => other.name === it.name) < n);
  if (twice) throw new Error(`Two regions are called “${twice.name}”: rename one of them.`);
  const fields = Object.fromEntries(recipe.fields.map((it) => [it.name, it]));
  const knobs = Object.fromEntries(Object.entries(form.knobs).map(([name, value]) => [name, taken(fields[name], value)]));
  const weights = form.styles.map((it) => Number(it.weight));
  if (weights.some((it) => it !== weights[0])) knobs.style_weights = weights;
  const axis = ({ knob, values }) => (knob && values.length ? [knob, ...values] : []);
  return {
    kind, styles: form.styles.map((it) => it.id), preset: form.preset, knobs,
    ...(form.content && { content: form.content }),
    ...(form.start && form.knobs.init === "picture" && { start: form.start }),
    ...(form.protect && { protect: form.protect }),
    ...(Object.keys(form.changes).length && { changes: form.changes }),
    ...(form.regions.length && { regions: Object.fromEntries(form.regions.map(({ name, ...region }) => [name, regionAsked(region)])) }),
    ...(kind === "grid" && { rows: axis(form.rows), columns: axis(form.columns) }),
  };
}

const regionAsked = ({ mask, color, style_mask: styleMask, ...numbers }) => ({
  mask, ...(color && { color }), ...(styleMask && { style_mask: styleMask }),
  ...Object.fromEntries(Object.entries(numbers).filter(([, it]) => it !== "" && it !== null).map(([name, it]) => [name, Number(it)])),
});

// The form that asked for a job.
export function fromAsked(job) {
  const { styles = [], knobs = {}, regions = {}, rows = [], columns = [], ...rest } = job.asked;
  const { style_weights: weights, ...others } = knobs;
  const axis = ([knob = "", ...values]) => ({ knob, values });
  return {
    ...emptyForm(), content: rest.content ?? null, start: rest.start ?? null, preset: rest.preset ?? "impasto", protect: rest.protect ?? "",
    changes: job.changes, knobs: others, styles: styles.map((id, n) => ({ id, weight: weights?.[n] ?? 1 })),
    regions: Object.entries(regions).map(([name, region]) => ({ name, ...region })), rows: axis(rows), columns: axis(columns),
  };
}

// The form of a picture that Impasto painted. A mask that was painted is in `masks`, by the name of its region, where it is here.
export function fromRecord({ recipe: whole, content, styles, masks }, recipe) {
  const { style_weights: weights, ...knobs } = changed(whole, recipe), { regions, protect, changes = {} } = whole;
  const mask = (value, name) => (made(value) ? value : masks[name] ?? "");
  return {
    ...emptyForm(), content, knobs, changes, preset: whole.preset in recipe.presets ? whole.preset : recipe.default,
    styles: styles.map((id, n) => ({ id, weight: weights?.[n] ?? 1 })).filter((it) => it.id),
    protect: mask(protect, "protected"),
    regions: Object.entries(regions ?? {}).map(([name, it]) => ({
      name, ...it, mask: mask(it.mask, name), style_mask: mask(it.style_mask, `${name}, style`),
    })).filter((it) => it.mask),
  };
}

const made = (mask) => /^(light|dark|rest|k-means \d+ of \d+)$/.test(mask);

export const changesInWords = (knobs) => Object.entries(knobs).map(([name, value]) => `${label(name)} ${inWords(value)}`).join(", ");

// A style edit as lines: [{layer, part: "units", "pairs" or null, key: "17", said: what is changed, in words}].
export function editLines(styleEdit = {}) {
  return Object.entries(styleEdit).flatMap(([layer, { units = {}, pairs = {}, ...rest }]) => [
    ...Object.entries(units).map(([key, it]) => ({ layer, part: "units", key, said: changeInWords(it) })),
    ...Object.entries(pairs).map(([key, it]) => ({ layer, part: "pairs", key, said: changeInWords(it) })),
    ...Object.entries(rest).map(([key, it]) => ({ layer, part: null, key, said: inWords(it) })),
  ]);
}

function changeInWords(it) {
  const { gain = 1, weight = 1 } = typeof it === "number" ? { gain: it } : it;
  return `${short(gain)} times as much${weight === 1 ? "" : `, weight ${short(weight)}`}`;
}

export const partName = ({ layer, part, key }) => `${layer}${part ? "/" : ", "}${key}`; // as the lens's addresses

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

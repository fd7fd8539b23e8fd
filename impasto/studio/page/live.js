// While one chooses: an instant picture of what the form says, painted anew as it changes, and the photograph in every style.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { pictureUrl, post } from "./api.js";
import { addJob, attempt, edit, pictureOf, useStudio } from "./state.js";
import { defaultOf, requestOf } from "./recipe.js";
import { Compare } from "./compare.js";

const WAIT = 120; // milliseconds after the last move
const LARGE = 640, SMALL = 192; // pixels of the longer side
const PHOTOGRAPHS = ["astronaut.jpg", "cat.jpg"]; // among the bundled pictures; the others are styles
const MOST_STYLES = 24;

// A request for an instant picture of the form; null if the form is not complete, or says something that no painting can follow.
// The strength counts relative to the form's preset; style pictures count as a whole.
function asked(form, recipe, size) {
  if (!form.content || !form.styles.length) return null;
  let whole;
  try { whole = requestOf(form, recipe); } catch { return null; }
  const { knobs: { quality, beta, ...knobs }, rows, columns, changes, regions = {}, ...rest } = whole;
  const [full, own] = [recipe.default, form.preset].map((preset) => defaultOf(recipe, preset, recipe.fields.find(({ name }) => name === "beta")));
  const strength = beta === undefined || !own ? {} : { beta: (beta * full) / own };
  const parts = Object.entries(regions).map(([name, { style_mask: _, ...region }]) => [name, region]);
  return {
    ...rest, ...(parts.length && { regions: Object.fromEntries(parts) }), kind: "instant", preset: recipe.default,
    knobs: { ...knobs, ...strength, size: Math.min(knobs.size || size, size) },
  };
}

async function painted(request, what) {
  const { picture, ...about } = await post(`/api/live?for=${what}`, request);
  return picture ? { ...about, url: urlOf(picture) } : about;
}

function urlOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
}

const masks = new Map(); // "picture mask" -> a promise of its url

// The url of a mask, white on black: one that is painted, or made of the picture; null for a mask that depends on others.
export function maskUrl(picture, mask) {
  if (!mask || mask === "rest" || !picture) return Promise.resolve(null);
  if (/^[0-9a-f]{16}$/.test(mask)) return Promise.resolve(pictureUrl(mask));
  const key = `${picture.id} ${mask}`;
  if (!masks.has(key)) masks.set(key, post("/api/live/mask", { picture: picture.id, mask }).then((made) => urlOf(made.picture)));
  return masks.get(key).catch((error) => { masks.delete(key); throw error; }); // the next time may go well
}

export function warmUp() {
  post("/api/live/start").catch(() => {}); // without it the first picture takes longer
}

// The newest picture of the form: {url, guessed, why}, and whether a newer one is on its way.
function useLive(form, recipe, learned) {
  const [live, setLive] = useState({}), [isBusy, setBusy] = useState(false);
  const request = JSON.stringify(asked(form, recipe, LARGE));
  useEffect(() => {
    if (request === "null") return setLive({});
    let isNewest = true;
    setBusy(true);
    const later = setTimeout(async () => {
      const ask = () => painted(JSON.parse(request), "stage").catch((error) => ({ why: error.message }));
      let found = await ask();
      while (isNewest && found.superseded) found = await ask(); // by another page
      if (!isNewest) return found.url && URL.revokeObjectURL(found.url);
      setBusy(false);
      setLive(found);
    }, WAIT);
    return () => { isNewest = false; clearTimeout(later); };
  }, [request, learned]);
  useEffect(() => () => { if (live.url) URL.revokeObjectURL(live.url); }, [live.url]); // when another takes its place
  return [live, isBusy];
}

export function Live() {
  const { form, recipe, jobs } = useStudio(), content = pictureOf(form.content);
  const learned = jobs.filter((job) => job.kind === "learn" && job.state === "finished").length;
  const [{ url, guessed = [], why }, isBusy] = useLive(form, recipe, learned);
  const styles = form.styles.map(({ id }) => pictureOf(id)).filter(Boolean);
  if (!content || !styles.length) return null;
  const photograph = { name: `photograph: ${content.name}`, url: pictureUrl(content.id) };
  return html`
    <div class="top"><h2>${nameOf(content)} in the manner of ${styles.map(nameOf).join(" and ")}</h2></div>
    ${url ? html`<${Compare} id=${content.id} name="Instant picture" url=${url} others=${[photograph, ...styles.map(asOther)]} />`
      : html`<div class="empty waiting"><img src=${pictureUrl(content.id)} alt=${content.name} /></div>`}
    <p class="job-status" role="status">${why ?? (isBusy ? "painting an instant picture" : "An instant picture. It follows the form; Paint makes the fine one.")}</p>
    ${guessed.map((n) => styles[n] && html`<${Guessed} key=${styles[n].id} style=${styles[n]} crop=${form.styles[n].crop ?? form.knobs.style_crop ?? ""} />`)}`;
}

const asOther = (picture) => ({ name: `style: ${picture.name}`, url: pictureUrl(picture.id) });

// A style that the net has not learned. It is learned as it is cropped by itself.
function Guessed({ style, crop }) {
  const { jobs } = useStudio();
  const isLearning = jobs.some((job) => job.kind === "learn" && job.asked.picture === style.id && ["queued", "running"].includes(job.state));
  const learn = () => attempt(async () => addJob(await post("/api/jobs", { kind: "learn", picture: style.id })));
  return html`<p class="hint">${nameOf(style)} is new to instant pictures, so this one is a guess. Paint is not affected.
    ${crop ? " Only whole style pictures can be learned: take its crop away to learn it." : isLearning ? " It is being learned: see the queue." : html` <button onClick=${learn}>Learn this style (about 3 minutes)</button>`}</p>`;
}

const TITLES = {
  "arcimboldo-spring.jpg": "Arcimboldo, Spring", "hokusai-great-wave.jpg": "Hokusai, The Great Wave", "hubble-deep-field.jpg": "Hubble, Deep Field",
  "renoir-moulin.jpg": "Renoir, Moulin de la Galette", "van-gogh-auvers.jpg": "Van Gogh, Houses at Auvers",
};

// "my-cat_2.jpg" -> "My cat 2"
function nameOf({ name, bundled }) {
  const words = name.replace(/\.\w+$/, "").replaceAll(/[-_]+/g, " ").trim();
  return (bundled && TITLES[name]) || (words ? words[0].toUpperCase() + words.slice(1) : name);
}

// Photographs to begin with.
export function Samples() {
  const samples = useStudio().pictures.filter(({ bundled, name }) => bundled && PHOTOGRAPHS.includes(name));
  return html`<section aria-label="To begin with"><h2>Choose a photograph</h2>
    <p class="hint">Drop your own anywhere, paste it, or begin with one of these.</p>
    <ul class="tiles">${samples.map((picture) => html`<li key=${picture.id}><button class="tile" onClick=${() => edit({ content: picture.id })}>
      <img src=${pictureUrl(picture.id, "small")} alt="" /><span>${nameOf(picture)}</span></button></li>`)}</ul></section>`;
}

// The bundled styles and the newest others, with the photograph in them as soon as that is painted.
export function Styles() {
  const { form, pictures, jobs } = useStudio(), chosen = form.styles.map(({ id }) => id);
  const isStyle = ({ id, bundled, name, record }) => id !== form.content && !record && !(bundled && PHOTOGRAPHS.includes(name));
  const all = pictures.filter(isStyle), styles = [...all.filter(({ bundled }) => !bundled).slice(0, MOST_STYLES), ...all.filter(({ bundled }) => bundled)];
  const learned = jobs.filter((job) => job.kind === "learn" && job.state === "finished").map((job) => job.asked.picture);
  const shown = useTiles(form.content, styles, learned), known = (id) => form.styles.find((style) => style.id === id);
  const choose = (id, mix) => edit({ styles: mix ? mixed(form.styles, id) : [known(id) ?? { id, weight: 1 }] });
  return html`<section aria-label="Styles"><h2>${chosen.length ? "Styles" : "Choose a style"}</h2>
    <p class="hint">A click chooses a style, with Shift it is mixed with those chosen already. Drop your own style pictures on Style.</p>
    <ul class="tiles">${styles.map((picture) => html`<li key=${picture.id}>
      <button class="tile" aria-pressed=${chosen.includes(picture.id)} onClick=${(event) => choose(picture.id, event.shiftKey)}>
        <img src=${shown[picture.id] ?? pictureUrl(picture.id, "small")} alt="" loading="lazy" />
        ${shown[picture.id] && html`<img class="inset" src=${pictureUrl(picture.id, "small")} alt="" />`}
        <span>${nameOf(picture)}</span></button></li>`)}</ul></section>`;
}

function mixed(styles, id) {
  return styles.some((style) => style.id === id) ? styles.filter((style) => style.id !== id) : [...styles, { id, weight: 1 }];
}

const tiles = new Map(); // "photograph style" and how often it was learned -> its url, or null while it is painted

// {style: url} of the photograph in these styles; they come one after the other, and again when a style was learned.
function useTiles(content, styles, learned) {
  const [, redraw] = useState(0), keys = styles.map(({ id }) => `${content} ${id} ${learned.filter((other) => other === id).length}`);
  useEffect(() => {
    if (!content) return;
    let goesOn = true;
    const next = async () => {
      const n = keys.findIndex((key) => !tiles.has(key));
      if (!goesOn || n < 0) return;
      tiles.set(keys[n], null);
      const request = { kind: "instant", content, styles: [styles[n].id], knobs: { size: SMALL } };
      try {
        tiles.set(keys[n], (await painted(request, "tile")).url ?? null);
      } catch {
        return tiles.delete(keys[n]); // the studio does not answer: later perhaps
      }
      redraw((count) => count + 1);
      next();
    };
    next();
    return () => { goesOn = false; };
  }, [keys.join(",")]);
  return Object.fromEntries(styles.map(({ id }, n) => [id, tiles.get(keys[n])]));
}

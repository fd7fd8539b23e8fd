// The costs so far, drawn: step across, cost up on a logarithmic scale.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, jobUrl } from "./api.js";

const WIDTH = 320, HEIGHT = 120, MOST = 600; // points that are drawn
const DEEP = 1e-5; // costs below that share of the highest are cut off
const LINES = { total: 1, content: 2, style: 3 }; // name -> its place in a point

// The points of a job: what was, fetched once, and each step as it comes.
function useCurve(job) {
  const [points, put] = useState([]);
  useEffect(() => {
    let left = false;
    get(jobUrl(job.id, "curve")).then(({ curve }) => { if (!left) put((later) => joined(curve, later)); }, () => { /* without a curve */ });
    return () => { left = true; };
  }, [job.id]);
  useEffect(() => {
    const { step } = job;
    if (step?.total != null) put((before) => joined(before, [[step.i, step.total, step.content, step.style, step.scale]]));
  }, [job.id, job.step?.i]);
  return points;
}

function joined(before, later) {
  return later.length ? [...before.filter(([i]) => i < later[0][0]), ...later] : before; // the next painting of a sheet begins anew
}

const said = (value) => value.toExponential(1).replace(/e\+?/, "e");
const number = (value) => (value >= 0.01 && value < 1e5 ? String(Number(value.toPrecision(3))) : said(value));

export function Curve({ job }) {
  const all = useCurve(job), of = job.step?.of || all.length, every = Math.ceil(all.length / MOST);
  if (all.length < 2) return null;
  const points = all.filter((_, n) => n % every === 0 || n === all.length - 1);
  const values = points.flatMap(([, ...costs]) => costs.slice(0, 3)).filter((it) => it > 0);
  const most = Math.max(...values), least = Math.max(Math.min(...values), most * DEEP), span = Math.log(most / least) || 1;
  const x = (i) => (WIDTH * i) / of, y = (value) => HEIGHT * (Math.log(most / Math.max(value, least)) / span);
  const path = (n) => points.filter((it) => it[n] > 0).map((it) => `${x(it[0]).toFixed(1)},${y(it[n]).toFixed(1)}`).join(" ");
  const grown = points.filter((it, n) => n && it[4] !== points[n - 1][4]);
  const first = points[0], last = points[points.length - 1], lines = Object.entries(LINES).filter(([, n]) => last[n] > 0);
  const words = `The total cost, from ${number(first[1])} at step ${first[0]} to ${number(last[1])} at step ${last[0]}`;
  return html`<figure class="curve"><svg viewBox="0 -4 ${WIDTH} ${HEIGHT + 8}" preserveAspectRatio="none" role="img" aria-label=${words}>
      ${grown.map((it) => html`<line class="grown" x1=${x(it[0])} x2=${x(it[0])} y1="0" y2=${HEIGHT} />`)}
      ${lines.map(([name, n]) => html`<polyline class=${name} points=${path(n)} />`)}</svg>
    <span class="bound">${number(most)}</span><span class="bound least">${number(least)}</span>
    <figcaption>${lines.map(([name, n]) => html`<span class="key ${name}">${name} ${number(last[n])}</span>`)}
      ${grown.length > 0 && html`<span title="The picture gets larger here, and costs of different sizes cannot be compared">│ next scale</span>`}</figcaption></figure>`;
}

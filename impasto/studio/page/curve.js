// A chart of the costs so far, over the steps, on a logarithmic scale.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, jobUrl } from "./api.js";

const WIDTH = 320, HEIGHT = 120, MAX_POINTS = 600;
const MIN_SHARE = 1e-5; // lower costs, as a share of the highest, are clipped
const LINES = { total: 1, content: 2, style: 3 }; // name -> index in a point

// The points of a job: the earlier ones are fetched once, later ones come with the events.
function useCurve(job) {
  const [points, setPoints] = useState([]);
  useEffect(() => {
    let left = false;
    get(jobUrl(job.id, "curve")).then(({ curve }) => { if (!left) setPoints((later) => joined(curve, later)); }, () => { /* without a curve */ });
    return () => { left = true; };
  }, [job.id]);
  useEffect(() => {
    const { step } = job;
    if (step?.total != null) setPoints((before) => joined(before, [[step.i, step.total, step.content, step.style, step.scale]]));
  }, [job.id, job.step?.i]);
  return points;
}

function joined(before, later) {
  return later.length ? [...before.filter(([i]) => i < later[0][0]), ...later] : before; // on a sheet the next painting starts again at step 1
}

const scientific = (value) => value.toExponential(1).replace(/e\+?/, "e");
const number = (value) => (value >= 0.01 && value < 1e5 ? String(Number(value.toPrecision(3))) : scientific(value));

export function Curve({ job }) {
  const all = useCurve(job), of = job.step?.of || all.length, every = Math.ceil(all.length / MAX_POINTS);
  if (all.length < 2) return null;
  const points = all.filter((_, n) => n % every === 0 || n === all.length - 1);
  const values = points.flatMap(([, ...costs]) => costs.slice(0, 3)).filter((cost) => cost > 0);
  const most = Math.max(...values), least = Math.max(Math.min(...values), most * MIN_SHARE), span = Math.log(most / least) || 1;
  const x = (i) => (WIDTH * i) / of, y = (value) => HEIGHT * (Math.log(most / Math.max(value, least)) / span);
  const path = (n) => points.filter((point) => point[n] > 0).map((point) => `${x(point[0]).toFixed(1)},${y(point[n]).toFixed(1)}`).join(" ");
  const scaleChanges = points.filter((point, n) => n && point[4] !== points[n - 1][4]);
  const first = points[0], last = points[points.length - 1], lines = Object.entries(LINES).filter(([, n]) => last[n] > 0);
  const words = `The total cost, from ${number(first[1])} at step ${first[0]} to ${number(last[1])} at step ${last[0]}`;
  return html`<figure class="curve"><svg viewBox="0 -4 ${WIDTH} ${HEIGHT + 8}" preserveAspectRatio="none" role="img" aria-label=${words}>
      ${scaleChanges.map((point) => html`<line class="scale-change" x1=${x(point[0])} x2=${x(point[0])} y1="0" y2=${HEIGHT} />`)}
      ${lines.map(([name, n]) => html`<polyline class=${name} points=${path(n)} />`)}</svg>
    <span class="bound">${number(most)}</span><span class="bound least">${number(least)}</span>
    <figcaption>${lines.map(([name, n]) => html`<span class="key ${name}">${name} ${number(last[n])}</span>`)}
      ${scaleChanges.length > 0 && html`<span title="The picture gets larger here, and costs of different sizes cannot be compared">│ next scale</span>`}</figcaption></figure>`;
}

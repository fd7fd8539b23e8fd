// What the page asks of the studio, and what the studio tells it.

const HEADERS = { "X-Impasto": "1" };

class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: no answer at all
  }
}

async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => { throw new Refused("The studio does not answer.", 0); });
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : null;
  throw new Refused(sentence(text, answer.status), answer.status);
}

function sentence(text, status) {
  try { return JSON.parse(text).error; } catch { return `The studio refused this (${status}).`; }
}

export const get = (path) => ask(path);
export const remove = (path) => ask(path, { method: "DELETE", headers: HEADERS });

export function post(path, body = {}) {
  return ask(path, { method: "POST", headers: { ...HEADERS, "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export function upload(blob, name, mask = false) {
  const path = `/api/pictures?name=${encodeURIComponent(name)}${mask ? "&mask=1" : ""}`;
  return ask(path, { method: "POST", headers: HEADERS, body: blob });
}

export const pictureUrl = (id, what = "image") => `/api/pictures/${id}/${what}`;
export const jobUrl = (id, what = "image") => `/api/jobs/${id}/${what}`;

// Calls hears.hello, .job, .gone, .picture, .reload with what the studio says, and hears.lost when it falls silent.
export function listen(hears) {
  const source = new EventSource("/api/events");
  for (const name of ["hello", "job", "gone", "picture", "reload"]) {
    source.addEventListener(name, (event) => hears[name](JSON.parse(event.data || "null")));
  }
  source.onerror = () => {
    hears.lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000, hears); // it does not try again by itself
  };
}

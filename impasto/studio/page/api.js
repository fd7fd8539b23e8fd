// Requests to the studio's API, and its events.

const HEADERS = { "X-Impasto": "1" };

class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: no response
  }
}

async function request(path, options) {
  const response = await fetch(path, options).catch(() => { throw new RequestError("The studio does not answer.", 0); });
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : null;
  throw new RequestError(errorMessage(text, response.status), response.status);
}

function errorMessage(text, status) {
  try { return JSON.parse(text).error; } catch { return `The studio refused this (${status}).`; }
}

export const get = (path) => request(path);
export const remove = (path) => request(path, { method: "DELETE", headers: HEADERS });

export function post(path, body = {}) {
  return request(path, { method: "POST", headers: { ...HEADERS, "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export function upload(blob, name, mask = false) {
  const path = `/api/pictures?name=${encodeURIComponent(name)}${mask ? "&mask=1" : ""}`;
  return request(path, { method: "POST", headers: HEADERS, body: blob });
}

export const pictureUrl = (id, what = "image") => `/api/pictures/${id}/${what}`;
export const jobUrl = (id, what = "image") => `/api/jobs/${id}/${what}`;

// Calls handlers.hello, .job, .gone, .picture, .reload with the data of each event, and handlers.lost if the connection is lost.
export function listen(handlers) {
  const source = new EventSource("/api/events");
  for (const name of ["hello", "job", "gone", "picture", "reload"]) {
    source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data || "null")));
  }
  source.onerror = () => {
    handlers.lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000, handlers); // a closed EventSource does not reconnect
  };
}

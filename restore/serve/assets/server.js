// What the page asks of its server. Every failure becomes a `Problem` whose message can be shown to a person.

export class Problem extends Error {
  /** @param {number} status  HTTP status, 0 if the server did not answer */
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

async function problemOf(response) {
  let body = {};
  try { body = await response.json(); } catch { /* an answer without JSON */ }
  return new Problem(response.status, describe(body) || `The server answered ${response.status}.`, body.hint || "");
}

/** A problem in words: what is wrong, and where. */
export function describe(problem) {
  if (!problem) return "";
  if (typeof problem === "string") return problem;
  const text = problem.detail || problem.title || "";
  return problem.where && !text.includes(problem.where) ? `${problem.where}: ${text}` : text;
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer. Is `restore open` still running?");
  }
}

export async function get(path) {
  const response = await send(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

export async function post(path, body = {}, method = "POST") {
  const text = JSON.stringify(body);
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  // A request that is small enough outlives the page: the last stroke arrives even if the tab is closed.
  const response = await send(path, { method, headers, body: text, keepalive: text.length < 60_000 });
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? {} : response.json();
}

export async function putFile(path, file) {
  const response = await send(path, { method: "PUT", headers: { "Content-Type": "image/png" }, body: file });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

/**
 * An image as a bitmap, decoded outside the main thread.
 *
 * @returns {Promise<{ image: ImageBitmap | null, revision: number }>}  null where the server says 204, nothing there; the
 *     number of the state that it belongs to, NaN if it has none
 */
export async function bitmap(path, signal) {
  const response = await send(path, { signal });
  const revision = Number(response.headers.get("Restore-Revision") ?? NaN);
  if (response.status === 204) return { image: null, revision };
  if (!response.ok) throw await problemOf(response);
  const options = { premultiplyAlpha: "default", colorSpaceConversion: "none" };
  return { image: await createImageBitmap(await response.blob(), options), revision };
}

// ---- events and jobs

const jobs = new Map(); // id -> the last that is known
const waiting = new Map(); // id -> functions to call at every change
const listeners = { file: [], job: [], connection: [] };

export function on(kind, listener) {
  listeners[kind].push(listener);
}

function tell(kind, value) {
  for (const listener of listeners[kind]) listener(value);
}

const isOver = (job) => ["done", "failed", "cancelled"].includes(job.state);

function jobChanged(job) {
  const known = jobs.get(job.id);
  if (known && isOver(known)) return;
  jobs.set(job.id, { ...known, ...job });
  tell("job", jobs.get(job.id));
  for (const change of waiting.get(job.id) || []) change(jobs.get(job.id));
}

export function listen() {
  const source = new EventSource("/page/events");
  source.addEventListener("file", (event) => tell("file", JSON.parse(event.data)));
  source.addEventListener("job", (event) => jobChanged(JSON.parse(event.data)));
  // "open" would be too early: the answer begins before the server listens for changes.
  source.addEventListener("listening", () => tell("connection", true));
  source.addEventListener("error", () => tell("connection", false));
  addEventListener("pagehide", () => source.close());
}

/**
 * Wait until a job is over. The server is also asked now and then, because an event can be lost with the connection.
 *
 * @param {string} id
 * @param {(job: object) => void} changed  called at every change
 * @returns {Promise<object>}  the job: done or cancelled
 * @throws {Problem}  it failed
 */
export function finished(id, changed = () => {}) {
  return new Promise((resolve, reject) => {
    const settle = (job) => {
      changed(job);
      if (!isOver(job)) return;
      clearInterval(timer);
      waiting.delete(id);
      if (job.state === "failed") reject(new Problem(500, describe(job.problem) || job.message || "This failed.", job.problem?.hint || ""));
      else resolve(job);
    };
    const ask = async () => {
      try { jobChanged({ ...(await get(`/page/jobs/${id}`)), id }); } catch (error) {
        if (error.status === 404) settle({ id, state: "failed", problem: "The server has restarted, and this work is lost: start it again." });
      }
    };
    const timer = setInterval(ask, 2000);
    waiting.set(id, [...(waiting.get(id) || []), settle]);
    if (jobs.has(id)) settle(jobs.get(id));
  });
}

export const cancel = (id) => post(`/page/jobs/${id}/cancel`);

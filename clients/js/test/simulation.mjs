/** Simulations of Dialtone, with given responses, and of the SDK, which records its calls. */

export const ORIGIN = "https://phones.example.com";
const BASE = Date.parse("2026-11-23T12:00:00Z");

/** A login of the service. Times are in seconds after the server's time. */
export function login({ refresh = 3600, expires = 4800, usable = -60, token = "token-1", ...more } = {}) {
  const at = (seconds) => new Date(BASE + seconds * 1000).toISOString();
  return {
    id: "0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    device_id: "tab-1",
    login_token: token,
    sip_username: "gencredA",
    sip_uri: "sip:gencredA@sip.telnyx.com",
    issued_at: at(0),
    refresh_after: at(refresh),
    expires_at: at(expires),
    usable_at: at(usable),
    server_time: at(0),
    ...more,
  };
}

export const ok = (body = login()) => () => Response.json(body);

export const problem = (status, code, headers = {}) => () =>
  Response.json(
    { type: `urn:dialtone:problem:${code}`, title: "t", status, code, request_id: "r-1", retryable: status === 503 },
    { status, headers: { "Content-Type": "application/problem+json", ...headers } },
  );

export const offline = () => () => {
  throw new TypeError("Failed to fetch");
};

/** A `fetch` that returns the given responses in order, repeats the last one, and records the requests. */
export function service(...answers) {
  const requests = [];
  const fetch = async (url, request) => {
    requests.push({ method: request.method, url: String(url), body: request.body && JSON.parse(request.body), request });
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    return answer();
  };
  return { fetch, requests };
}

/** The SDK's client. Registers immediately. `accepts` decides about logins on an open socket. */
export class FakeSdk {
  static made = [];
  connected = false;
  logins = [];
  accepts = true;
  #listeners = new Map();

  constructor(options) {
    this.options = options;
    FakeSdk.made.push(this);
  }

  async connect() {
    this.connected = true;
    queueMicrotask(() => this.fire("telnyx.ready", { type: "vertoClientReady" }));
  }

  async disconnect() {
    this.connected = false;
    this.isGone = true;
  }

  login({ creds, onSuccess, onError }) {
    this.logins.push(creds.login_token);
    queueMicrotask(() => (this.accepts ? onSuccess() : onError(new Error("no"))));
  }

  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }

  fire(name, event) {
    for (const listener of this.#listeners.get(name) ?? []) listener(event);
  }
}

/** Wait until `check` returns true. Throws after `milliseconds`, which only a hang should take. */
export async function eventually(check, milliseconds = 30_000) {
  const deadline = performance.now() + milliseconds;
  while (!check()) {
    if (performance.now() > deadline) throw new Error("the condition was not met in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The Web Locks of a browser. All its tabs share them. Like a browser, it releases a lock after the tasks in progress. */
export function webLocks() {
  const queues = new Map();
  const locks = {
    held: () => [...queues.keys()],
    query: () => new Promise((resolve) => setTimeout(resolve, 5)), // after the locks that were released before it
    request(name, { signal }, callback) {
      return new Promise((resolve, reject) => {
        const queue = queues.get(name) ?? [];
        queues.set(name, queue);
        const grant = async () => {
          try {
            resolve(await callback({ name }));
          } catch (error) {
            reject(error);
          }
          await new Promise((done) => setTimeout(done, 2));
          queue.shift();
          if (queue.length > 0) queue[0]();
          else queues.delete(name);
        };
        signal?.addEventListener("abort", () => {
          if (queue.indexOf(grant) < 1) return;
          queue.splice(queue.indexOf(grant), 1);
          reject(signal.reason);
        });
        queue.push(grant);
        if (queue.length === 1) queueMicrotask(grant);
      });
    },
  };
  return locks;
}

/** Load a new page in this process. `kept`: the tab's session storage. */
export function loadPage({ locks, kept = {} } = {}) {
  delete globalThis[Symbol.for("dialtone-client.page.1")];
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { userAgent: "", ...(locks ? { locks } : {}) } });
  globalThis.sessionStorage = {
    getItem: (key) => kept[key] ?? null,
    setItem: (key, value) => (kept[key] = value),
    clear: () => Object.keys(kept).forEach((key) => delete kept[key]),
  };
  return kept;
}

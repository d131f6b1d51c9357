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

/** Wait until `check` returns true. Throws after `milliseconds`. */
export async function eventually(check, milliseconds = 3000) {
  const deadline = performance.now() + milliseconds;
  while (!check()) {
    if (performance.now() > deadline) throw new Error("the condition was not met in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

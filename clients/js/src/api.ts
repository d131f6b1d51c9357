/** Client of the HTTP API: four operations, each sent once. `TokenSource` retries them. */

import { DialtoneError, errorOf, errorOfSignIn } from "./errors.js";
import type { components } from "./openapi.js";

/** A login as the service returns it for the grant `login_token`, which is a secret: do not log or store it. */
export type Login = components["schemas"]["TelephonyCredential"] & { login_token: string };
export type Platform = components["schemas"]["Platform"];
/** A device of the user, without its secrets. */
export type Device = components["schemas"]["TelephonyCredentialInfo"];

export interface ApiOptions {
  /** The base URL of Dialtone, such as `https://phones.example.com`. */
  url: string;
  /** Returns the user's access token; null or undefined if no user is signed in. Called before every request. */
  accessToken: () => Promise<string | null | undefined> | string | null | undefined;
  fetch?: typeof fetch;
}

type Page = components["schemas"]["TelephonyCredentialPage"];

/** Timeout of a request. */
const TIMEOUT_MS = 15_000;

export class Api {
  readonly #options: ApiOptions;
  readonly #signal: AbortSignal | undefined;

  /** `signal` aborts the requests in flight. Throws `invalid_options`. */
  constructor(options: ApiOptions, signal?: AbortSignal) {
    const { url, accessToken } = Object(options) as Partial<ApiOptions>;
    if (typeof url !== "string" || !/^(https?:\/\/|\/|$)/i.test(url)) {
      throw invalid("url must be an address such as https://phones.example.com, or a path of this origin");
    }
    if (typeof accessToken !== "function") throw invalid("accessToken must be a function");
    this.#options = options;
    this.#signal = signal;
  }

  /** Issue a login to the device: cached, renewed or new. Idempotent per `deviceId`. */
  async issue(deviceId: string, platform: Platform, label?: string): Promise<Login> {
    const answer = await this.#send("POST", "", { device_id: deviceId, platform, ...(label ? { label } : {}) });
    return loginOf(answer);
  }

  /** Mint a new login token. Throws `credential_ended` if the credential was deleted or has expired. */
  async refresh(id: string): Promise<Login> {
    return loginOf(await this.#send("POST", `/${encodeURIComponent(id)}/token`));
  }

  /** Log the device out. Returns whether Telnyx has confirmed the deletion. */
  async revoke(id: string): Promise<boolean> {
    return (await this.#send("DELETE", `/${encodeURIComponent(id)}`)).status === 204;
  }

  /** The devices of the user. */
  async devices(): Promise<Device[]> {
    const devices: Device[] = [];
    let cursor: string | null | undefined;
    do {
      const answer = await this.#send("GET", cursor ? `?cursor=${encodeURIComponent(cursor)}` : "");
      const page = (await answer.json().catch(() => undefined)) as Partial<Page> | undefined;
      if (!Array.isArray(page?.data)) throw new DialtoneError("unexpected_answer", true, { status: answer.status });
      devices.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor);
    return devices;
  }

  async #send(method: string, path: string, body?: object): Promise<Response> {
    const token = await this.#token();
    const request: RequestInit = {
      method,
      headers: { Authorization: `Bearer ${token}`, ...(body ? { "Content-Type": "application/json" } : {}) },
      cache: "no-store",
      credentials: "omit",
      ...(body ? { body: JSON.stringify(body) } : {}),
    };
    const url = `${this.#options.url.replace(/\/+$/, "")}/v1/telephony-credentials${path}`;
    let answer: Response;
    try {
      answer = await this.#fetch(url, request);
    } catch (cause) {
      throw new DialtoneError("network", true, {}, { cause });
    }
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  }

  async #fetch(url: string, request: RequestInit): Promise<Response> {
    const ending = new AbortController();
    const abort = () => ending.abort();
    const timer = setTimeout(abort, TIMEOUT_MS);
    this.#signal?.addEventListener("abort", abort);
    if (this.#signal?.aborted) abort();
    try {
      return await (this.#options.fetch ?? globalThis.fetch)(url, { ...request, signal: ending.signal });
    } finally {
      clearTimeout(timer);
      this.#signal?.removeEventListener("abort", abort);
    }
  }

  async #token(): Promise<string> {
    let token: unknown;
    try {
      token = await this.#options.accessToken();
    } catch (thrown) {
      throw errorOfSignIn(thrown);
    }
    if (token === null || token === undefined || token === "") throw new DialtoneError("not_signed_in", false);
    if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token.trim())) {
      const cause = new TypeError("accessToken() must return the access token as a string");
      throw new DialtoneError("not_signed_in", false, {}, { cause });
    }
    return token.trim();
  }
}

function invalid(reason: string): DialtoneError {
  return new DialtoneError("invalid_options", false, {}, { cause: new TypeError(reason) });
}

async function loginOf(answer: Response): Promise<Login> {
  const login = (await answer.json().catch(() => undefined)) as Partial<Login> | undefined;
  const isComplete =
    typeof login?.login_token === "string" &&
    [login.refresh_after, login.expires_at, login.usable_at, login.server_time].every(
      (time) => typeof time === "string" && Number.isFinite(Date.parse(time)),
    );
  if (!isComplete) throw new DialtoneError("unexpected_answer", true, { status: answer.status });
  return login as Login;
}

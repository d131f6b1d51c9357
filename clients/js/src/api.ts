/** Client of the HTTP API: three operations, each sent once. `Phone` retries them. */

import { DialtoneError, errorOf } from "./errors.js";
import type { components } from "./openapi.js";

/** A login as the service returns it. `login_token` is a secret: do not log or store it. */
export type Login = components["schemas"]["TelephonyCredential"];
export type Platform = components["schemas"]["Platform"];

export interface ApiOptions {
  /** The base URL of Dialtone, such as `https://phones.example.com`. */
  url: string;
  /** Returns the user's access token; null if no user is signed in. Called before every request. */
  accessToken: () => Promise<string | null> | string | null;
  fetch?: typeof fetch;
}

/** Timeout of a request. */
const TIMEOUT_MS = 15_000;

export class Api {
  readonly #options: ApiOptions;

  constructor(options: ApiOptions) {
    this.#options = options;
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

  async #send(method: string, path: string, body?: object): Promise<Response> {
    const token = await this.#token();
    const request: RequestInit = {
      method,
      headers: { Authorization: `Bearer ${token}`, ...(body ? { "Content-Type": "application/json" } : {}) },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body ? { body: JSON.stringify(body) } : {}),
    };
    let answer: Response;
    try {
      const url = `${this.#options.url.replace(/\/+$/, "")}/v1/telephony-credentials${path}`;
      answer = await (this.#options.fetch ?? globalThis.fetch)(url, request);
    } catch {
      throw new DialtoneError("network", true);
    }
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  }

  async #token(): Promise<string> {
    let token: string | null;
    try {
      token = await this.#options.accessToken();
    } catch {
      throw new DialtoneError("network", true); // the sign-in library could not get a token
    }
    if (!token) throw new DialtoneError("not_signed_in", false);
    return token;
  }
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

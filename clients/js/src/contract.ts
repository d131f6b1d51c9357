/** What a page gives to a phone and hears of it. Types only: nothing here runs. */

import type { ApiOptions, Login, Platform } from "./api.js";
import type { DialtoneError } from "./errors.js";

/** What is used of `@telnyx/webrtc`'s TelnyxRTC. */
export interface SdkClient {
  readonly connected: boolean;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  login(options: { creds: { login_token: string }; onSuccess?: () => void; onError?: (error: unknown) => void }): unknown;
  // The SDK's own types differ from event to event.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  on(event: string, listener: (event: any) => void): unknown;
}

export interface SdkOptions {
  login_token: string;
  host?: string;
  region?: string;
}

export type State =
  | "idle"
  /** Asking Dialtone for a login. */
  | "fetching"
  /** A brand-new credential: Telnyx is still spreading it. */
  | "waiting"
  /** Logging in at Telnyx. */
  | "connecting"
  | "ready"
  /** The line was lost and is being set up again. */
  | "reconnecting"
  /** Given up; `error` says why. `connect()` tries again. */
  | "failed"
  | "logged_out";

export interface Events<Client extends SdkClient> {
  state: State;
  /** A login came in: its times and names, without the secret. */
  login: Omit<Login, "login_token" | "login" | "password">;
  /** The SDK is registered; also after every reconnect. */
  ready: Client;
  /** A `callUpdate` of the SDK: the call with its new state. */
  call: unknown;
  /** Something failed. `retryable` ones are being retried already. */
  error: DialtoneError;
}

export interface PhoneOptions<Client extends SdkClient> extends ApiOptions {
  /** Makes the SDK's client: `(options) => new TelnyxRTC(options)`. */
  createClient: (options: SdkOptions) => Client;
  /** Default: an id of this tab's own. */
  deviceId?: string;
  platform?: Platform;
  label?: string;
  /** How long Telnyx may take to answer a login. Default: 20 seconds. */
  loginTimeoutMs?: number;
}

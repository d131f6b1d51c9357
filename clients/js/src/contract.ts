/** Types of the options and events of `Phone`. */

import type { ApiOptions, Platform } from "./api.js";
import type { DialtoneError } from "./errors.js";
import type { LoginInfo } from "./token-source.js";

/** The part of `TelnyxRTC` from `@telnyx/webrtc` that the phone uses. */
export interface SdkClient {
  readonly connected: boolean;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  login(options: { creds: { login_token: string }; onSuccess?: () => void; onError?: (error: unknown) => void }): unknown;
  // The SDK's own types differ from event to event.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  on(event: string, listener: (event: any) => void): unknown;
}

/** Options for the constructor of the SDK's client, from the service. Its policy can set `region` and the options below it. */
export interface SdkOptions {
  login_token: string;
  host?: string;
  region?: string;
  debug?: boolean;
  prefetchIceCandidates?: boolean;
  forceRelayCandidate?: boolean;
  trickleIce?: boolean;
  keepConnectionAliveOnSocketClose?: boolean;
  hangupOnBeforeUnload?: boolean;
  mutedMicOnStart?: boolean;
  enableCallReports?: boolean;
}

/** Options for the SDK's `newCall`: the caller ID that the service's policy gives this user. */
export interface CallOptions {
  callerName?: string;
  callerNumber?: string;
}

/** The SDK's call: what `newCall()` of its client returns. */
export type CallOf<Client> = Client extends { newCall: (...options: never[]) => infer Call } ? Call : unknown;

export type State =
  | "idle"
  /** Requesting a login from Dialtone. */
  | "fetching"
  /** Waiting until Telnyx has propagated a new credential. */
  | "waiting"
  /** Logging in at Telnyx. */
  | "connecting"
  | "ready"
  /** The connection was lost and is being restored. */
  | "reconnecting"
  /** Failed with an error that a retry cannot fix; see the `error` event. The phone has disconnected. `connect()` starts again. */
  | "failed"
  | "logged_out";

export interface Events<Client extends SdkClient> {
  state: State;
  /** A new login, without its secret. */
  login: LoginInfo;
  /** The SDK is registered. Also emitted after every reconnect. */
  ready: Client;
  /** The call of a `callUpdate` notification of the SDK, with its new state. */
  call: CallOf<Client>;
  /** An error. Unless the state is `failed`, the phone is already retrying. */
  error: DialtoneError;
}

export interface PhoneOptions<Client extends SdkClient> extends ApiOptions {
  /** Creates the SDK's client, for example `(options) => new TelnyxRTC(options)`. */
  createClient: (options: SdkOptions) => Client;
  /** Default: an id for this browser tab. One `Phone` in a page uses a device at a time. */
  deviceId?: string;
  platform?: Platform;
  label?: string;
  /** Timeout of a login at Telnyx. Default: 20 seconds. */
  loginTimeoutMs?: number;
}

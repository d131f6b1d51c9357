/** One connection of the Telnyx SDK: its login, the events of its client, and its end. */

import type { CallOf, SdkClient } from "./contract.js";
import type { Clock } from "./schedule.js";

const LOGIN_FAILED = 46001;
/** A fallback if the timer failed. The SDK warns two minutes before the expiry, so immediately for short-lived tokens. */
const TOKEN_EXPIRING_SOON = 34001;
const LOGIN_TIMEOUT_MS = 20_000;
/** After a lost connection, the timeout is multiplied by this, because the SDK can restore calls in progress. */
const CALL_TIMEOUT_FACTOR = 3;
/** Timeout of a login on an open socket. After it, the connection counts as lost. */
const RELOGIN_MS = 5_000;

/** Called by an open connection; a closed one calls none of them. */
export interface ConnectionListener<Client> {
  /** The SDK is registered, also after it reconnected. */
  onReady(): void;
  onCall(call: CallOf<Client>): void;
  /** The socket closed. The SDK reconnects by itself with its token. */
  onLost(): void;
  onTokenExpiring(): void;
  /** Telnyx rejected the login. */
  onRejected(cause: unknown): void;
  /** The SDK was not registered in time. It waits without a limit for Telnyx, and stops reconnecting after ten attempts. */
  onTimeout(): void;
}

export class Connection<Client extends SdkClient> {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #listener: ConnectionListener<Client>;
  readonly #closing = new AbortController();
  #cancelTimeout: () => void = () => undefined;

  constructor(
    readonly client: Client,
    listener: ConnectionListener<Client>,
    clock: Clock,
    timeoutMs = LOGIN_TIMEOUT_MS,
  ) {
    this.#listener = listener;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#listen();
  }

  get isConnected(): boolean {
    return this.client.connected;
  }

  open(): void {
    this.#expectReady(this.#timeoutMs);
    // A failure is an event of the SDK, or a timeout.
    void Promise.resolve(this.client.connect()).catch(() => undefined);
  }

  /** Log in on the open socket. Calls continue. Returns whether Telnyx accepted it. */
  login(token: string): Promise<boolean> {
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      const done = (isGood: boolean) => {
        cancel();
        signal.removeEventListener("abort", fail);
        resolve(isGood);
      };
      const fail = () => done(false);
      const cancel = this.#clock.after(RELOGIN_MS, fail);
      signal.addEventListener("abort", fail);
      try {
        this.client.login({ creds: { login_token: token }, onSuccess: () => done(true), onError: fail });
      } catch {
        fail();
      }
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#cancelTimeout();
    try {
      await this.client.disconnect();
    } catch {
      /* the SDK rejects if its socket is already closed */
    }
  }

  #listen(): void {
    this.#on("telnyx.ready", () => {
      this.#cancelTimeout();
      this.#listener.onReady();
    });
    this.#on("telnyx.notification", (event) => {
      if (event?.type === "callUpdate") this.#listener.onCall(event.call as CallOf<Client>);
    });
    this.#on("telnyx.warning", (event) => {
      if (event?.warning?.code === TOKEN_EXPIRING_SOON) this.#listener.onTokenExpiring();
    });
    this.#on("telnyx.socket.close", () => this.#listener.onLost());
    this.#on("telnyx.error", (event) => {
      if (event?.error?.code !== LOGIN_FAILED) return;
      this.#cancelTimeout();
      this.#listener.onRejected(event.error);
    });
  }

  /** The SDK cannot remove every listener, so a closed connection ignores its events. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  #on(name: string, listener: (event: any) => void): void {
    this.client.on(name, (event) => {
      if (!this.#closing.signal.aborted) listener(event);
    });
  }

  /** Give the SDK time to restore a lost connection. */
  expectReconnect(): void {
    this.#expectReady(this.#timeoutMs * CALL_TIMEOUT_FACTOR);
  }

  #expectReady(milliseconds: number): void {
    this.#cancelTimeout();
    this.#cancelTimeout = this.#clock.after(milliseconds, () => this.#listener.onTimeout());
  }
}

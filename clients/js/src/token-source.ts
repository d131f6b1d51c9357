/**
 * Logins of one device: requested, cached, refreshed and revoked. For browsers, React Native and Node: it uses neither a page
 * nor the Telnyx SDK.
 */

import { Api, type ApiOptions, type Login, type Platform } from "./api.js";
import { DialtoneError } from "./errors.js";
import { Emitter } from "./events.js";
import { type Clock, Deadline, SYSTEM_CLOCK, Timer, pause, sleep, unlessAborted } from "./schedule.js";

export type { ApiOptions, Login, Platform } from "./api.js";
export { DialtoneError } from "./errors.js";
export type { Code, Problem } from "./errors.js";

export interface TokenSourceOptions extends ApiOptions {
  /** The id of the device, or a function that returns it. Keep it: an installation of an app has the same id for ever. */
  deviceId: string | (() => Promise<string> | string);
  /** Default: `browser`. */
  platform?: Platform;
  label?: string;
}

/** A login without its secrets. */
export type LoginInfo = Omit<Login, "login_token" | "login" | "password">;

export interface TokenSourceEvents {
  /** The service returned a login. */
  login: LoginInfo;
  /** The login is due for a refresh: call `get()`. Emitted again after a refresh that failed. */
  due: LoginInfo;
  /** A request failed and will be retried. */
  error: DialtoneError;
}

/** The codes of a credential that no longer exists. */
const DELETED: ReadonlySet<string> = new Set(["credential_ended", "credential_not_found"]);
/** The shortest delay until a refresh. */
const MIN_REFRESH_MS = 500;
/** Delays after a refresh that failed with an error that is not retryable, while the login is valid. */
const FIRST_REFRESH_PAUSE_MS = 30_000;
const MAX_REFRESH_PAUSE_MS = 300_000;
const REVOKE_TRIES = 3;

/** The time until `close()` or `revoke()`. */
class Session {
  readonly #stop = new AbortController();
  readonly #abort = new AbortController();

  /** Aborted when nothing new begins. */
  get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  /** Aborted when the response to a request in flight is not needed. A revocation needs it. */
  get aborted(): AbortSignal {
    return this.#abort.signal;
  }

  get hasStopped(): boolean {
    return this.stopped.aborted;
  }

  stop(): void {
    this.#stop.abort();
  }

  abort(): void {
    this.#stop.abort();
    this.#abort.abort();
  }
}

export class TokenSource extends Emitter<TokenSourceEvents> {
  readonly #options: TokenSourceOptions;
  readonly #api: Api;
  readonly #clock: Clock;
  #session = new Session();
  #flight: Promise<Login> | undefined;
  #revocation: Promise<unknown> = Promise.resolve();
  #login: Login | undefined;
  #refresh: Deadline | undefined;
  #expiry: Deadline | undefined;
  #timer: Timer | undefined;
  #failures = 0;

  /** Throws `invalid_options`. `clock`: for tests. */
  constructor(options: TokenSourceOptions, clock: Clock = SYSTEM_CLOCK) {
    super();
    this.#api = new Api(options);
    if (typeof options.deviceId !== "string" && typeof options.deviceId !== "function") {
      throw invalid(new TypeError("deviceId must be a string or a function"));
    }
    this.#options = options;
    this.#clock = clock;
  }

  /** The last login, without its secrets; undefined before the first one, and after `revoke()`. */
  get login(): LoginInfo | undefined {
    return this.#login && infoOf(this.#login);
  }

  /** Whether the last login is due for a refresh. True without a login. */
  get isDue(): boolean {
    return this.#refresh?.hasPassed ?? true;
  }

  /** Whether the last login has expired. True without a login. */
  get hasExpired(): boolean {
    return this.#expiry?.hasPassed ?? true;
  }

  /**
   * A login that Telnyx accepts now: the last one until it is due for a refresh, then a new one. Concurrent callers share a
   * request. Retries until it succeeds. Rejects with a DialtoneError that a retry cannot fix, or `closed`.
   */
  get(): Promise<Login> {
    const isCached = this.#flight === undefined && this.#login !== undefined && !this.isDue;
    return isCached ? Promise.resolve(this.#login as Login) : this.fetch();
  }

  /** As `get()`, but always asks the service, which returns the same login until it is due for a refresh. */
  fetch(): Promise<Login> {
    return this.#share((session) => this.#issue(session));
  }

  /** As `get()`, but always gets a new token, for example after Telnyx rejected the last one. */
  refresh(): Promise<Login> {
    return this.#share((session) => this.#mint(session));
  }

  /**
   * Log the device out: its tokens no longer work. Waits for `after`, and for a request in flight, whose login must be revoked
   * too. Rejects with a DialtoneError if the service did not accept it: then call it again.
   */
  revoke(after: Promise<unknown> = Promise.resolve()): Promise<void> {
    const flight = this.#flight;
    this.#stop().stop();
    const revocation = this.#revocation
      .then(() => Promise.allSettled([after, flight]))
      .then(() => this.#delete());
    this.#revocation = revocation.catch(() => undefined);
    return revocation;
  }

  /** End the request in flight and the timer, and forget the token. The credential is kept. `get()` starts again. */
  close(): void {
    this.#stop().abort();
  }

  /** Begin a new session, and return the previous one, which must be ended. */
  #stop(): Session {
    const session = this.#session;
    this.#session = new Session();
    this.#flight = this.#refresh = this.#expiry = undefined;
    this.#failures = 0;
    this.#timer?.cancel();
    return session;
  }

  #share(request: (session: Session) => Promise<Login>): Promise<Login> {
    if (this.#flight !== undefined) return this.#flight;
    const flight = this.#run(this.#session, request).finally(() => {
      if (this.#flight === flight) this.#flight = undefined;
    });
    return (this.#flight = flight);
  }

  async #run(session: Session, request: (session: Session) => Promise<Login>): Promise<Login> {
    try {
      await this.#revocation;
      const login = await this.#retry(session, () => request(session));
      const usableIn = Date.parse(login.usable_at) - Date.parse(login.server_time);
      if (!session.aborted.aborted) this.#store(session, login);
      if (usableIn > 0) await sleep(usableIn, this.#clock, session.stopped);
      if (session.hasStopped) throw new Error("closed while the credential was not usable yet");
      return login;
    } catch (thrown) {
      if (session.hasStopped) throw new DialtoneError("closed", false, {}, { cause: thrown });
      if (this.#refresh !== undefined) this.#retryLater();
      throw thrown;
    }
  }

  #apiOf(session: Session): Api {
    const accessToken = () => unlessAborted(this.#options.accessToken(), session.stopped);
    return new Api({ ...this.#options, accessToken }, session.aborted);
  }

  /** Retry while the error is retryable, after the delay that the service requests. */
  async #retry(session: Session, attempt: () => Promise<Login>): Promise<Login> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof DialtoneError) || !error.retryable || session.hasStopped) throw error;
        this.emit("error", error);
        const wait = Math.max(error.details.retryAfterMs ?? 0, pause(tries));
        await sleep(wait, this.#clock, session.stopped, error.code === "network");
        if (session.hasStopped) throw error;
      }
    }
  }

  async #issue(session: Session): Promise<Login> {
    const { platform = "browser", label } = this.#options;
    return this.#apiOf(session).issue(await this.#deviceId(session), platform, label);
  }

  async #deviceId(session: Session): Promise<string> {
    const { deviceId } = this.#options;
    try {
      return typeof deviceId === "string" ? deviceId : await unlessAborted(deviceId(), session.stopped);
    } catch (thrown) {
      throw thrown instanceof DialtoneError ? thrown : invalid(thrown);
    }
  }

  /** Mint a new token; if the credential was deleted, issue a new credential to the device. */
  async #mint(session: Session): Promise<Login> {
    if (this.#login === undefined) return this.#issue(session);
    try {
      return await this.#apiOf(session).refresh(this.#login.id);
    } catch (error) {
      if (!isDeleted(error)) throw error;
      return this.#issue(session);
    }
  }

  /** Store a login, and set the timer for its refresh. */
  #store(session: Session, login: Login): void {
    this.#login = login;
    if (session.hasStopped) return; // `revoke()` needs its id
    const now = Date.parse(login.server_time);
    const refreshIn = Math.max(Date.parse(login.refresh_after) - now, MIN_REFRESH_MS);
    this.#refresh = new Deadline(refreshIn, this.#clock);
    this.#expiry = new Deadline(Date.parse(login.expires_at) - now, this.#clock);
    this.#failures = 0;
    this.#emitDueIn(refreshIn);
    this.emit("login", infoOf(login));
  }

  /** The connection works without the refresh. The cause of an error may be resolved before the login expires. */
  #retryLater(): void {
    this.#failures += 1;
    this.#emitDueIn(pause(this.#failures, FIRST_REFRESH_PAUSE_MS, MAX_REFRESH_PAUSE_MS));
  }

  #emitDueIn(milliseconds: number): void {
    this.#timer?.cancel();
    const emitDue = () => this.#login && this.emit("due", infoOf(this.#login));
    this.#timer = new Timer(milliseconds, emitDue, this.#clock);
  }

  async #delete(): Promise<void> {
    for (let tries = 1; this.#login !== undefined; tries += 1) {
      try {
        await this.#api.revoke(this.#login.id);
        this.#login = undefined;
      } catch (error) {
        const isTransient = error instanceof DialtoneError && error.retryable && tries < REVOKE_TRIES;
        if (!isTransient) throw error;
        await sleep(Math.max(error.details.retryAfterMs ?? 0, pause(tries)), this.#clock);
      }
    }
  }
}

function isDeleted(error: unknown): boolean {
  return error instanceof DialtoneError && DELETED.has(error.code);
}

function infoOf(login: Login): LoginInfo {
  const { login_token: _, login: __, password: ___, ...info } = login;
  return info;
}

function invalid(cause: unknown): DialtoneError {
  return new DialtoneError("invalid_options", false, {}, { cause });
}

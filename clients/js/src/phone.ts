/**
 * The phone of one browser tab: connects the Telnyx SDK with the logins of a token source, and reports its state.
 *
 * The page owns the SDK: `createClient` creates its client, and calls are the SDK's calls. This class runs one task at a time,
 * and gets a new token *before* it reconnects a lost socket.
 */

import { Connection, type ConnectionListener } from "./connection.js";
import type { CallOptions, Events, PhoneOptions, SdkClient, State } from "./contract.js";
import { claimDevice, type Claim } from "./device.js";
import { DialtoneError } from "./errors.js";
import { Emitter } from "./events.js";
import { type Clock, SYSTEM_CLOCK, pause, sleep, unlessAborted } from "./schedule.js";
import { type Login, type LoginInfo, TokenSource } from "./token-source.js";

/** Consecutive login rejections by Telnyx before the phone fails. A new credential may cause some. */
const MAX_REJECTIONS = 4;

/** The time from `connect()` to `close()`, `logout()` or a failure, and the device that the phone holds in it. */
class Run {
  readonly #stop = new AbortController();

  constructor(readonly claim: Claim) {}

  get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  get hasStopped(): boolean {
    return this.stopped.aborted;
  }

  get deviceId(): Promise<string> {
    return unlessAborted(this.claim.id, this.stopped);
  }

  /** `after`: what must end before the device can be used again. */
  end(after?: Promise<unknown>): void {
    this.#stop.abort();
    this.claim.release(after);
  }
}

export class Phone<Client extends SdkClient = SdkClient> extends Emitter<Events<Client>> {
  readonly #options: PhoneOptions<Client>;
  readonly #source: TokenSource;
  readonly #clock: Clock;
  #state: State = "idle";
  #run: Run | undefined;
  #connection: Connection<Client> | undefined;
  #work: Promise<void> | undefined;
  #rejections = 0;
  #failure: DialtoneError | undefined;

  /** Throws `invalid_options`. `clock`: for tests. */
  constructor(options: PhoneOptions<Client>, clock: Clock = SYSTEM_CLOCK) {
    super();
    const deviceId = () => (this.#run as Run).deviceId;
    this.#source = new TokenSource({ ...options, deviceId }, clock);
    if (typeof options.createClient !== "function") {
      const cause = new TypeError("createClient must be a function");
      throw new DialtoneError("invalid_options", false, {}, { cause });
    }
    this.#options = options;
    this.#clock = clock;
    this.#source.on("login", (login) => this.#showLogin(login));
    this.#source.on("error", (error) => this.emit("error", error));
    this.#source.on("due", () => this.#renewInBackground());
  }

  get state(): State {
    return this.#state;
  }

  /** The SDK's client; undefined before the first connection. */
  get client(): Client | undefined {
    return this.#connection?.client;
  }

  /** The SIP URI of this tab, for incoming calls. */
  get sipUri(): string | undefined {
    return this.#source.login?.sip_uri;
  }

  /** To spread into the options of the SDK's `newCall`. Empty without a login, or if the service's policy sets no caller ID. */
  get callOptions(): CallOptions {
    const { callerName, callerNumber } = this.#source.login?.rtc?.call_options ?? {};
    return { ...(callerName ? { callerName } : {}), ...(callerNumber ? { callerNumber } : {}) };
  }

  /**
   * Fetch a login and register. Resolves when the phone is ready, or when `close()` or `logout()` ends the attempt. Rejects
   * with a DialtoneError that a retry cannot fix. A phone that is already connected keeps its connection.
   */
  async connect(): Promise<void> {
    const run = this.#run ?? this.#begin();
    if (this.#connection === undefined) await this.#alone(run, () => this.#bringUp(run, () => this.#source.fetch()));
    await this.#untilReady(run);
  }

  /** Fetch a new token now, and log in with it on the open connection. */
  async refresh(): Promise<void> {
    const run = this.#run;
    if (run !== undefined) await this.#alone(run, () => this.#renew(run, () => this.#source.refresh()));
  }

  /** Unregister, and delete the credential. Its tokens no longer work. If it rejects, the credential still exists. */
  async logout(): Promise<void> {
    let end: () => void = () => undefined;
    const disconnected = this.#stop(new Promise<void>((resolve) => (end = resolve)));
    try {
      await this.#source.revoke(disconnected); // of a login in flight too
      if (this.#run === undefined) this.#become("logged_out");
    } catch (error) {
      if (this.#run === undefined) this.#become("idle");
      throw error;
    } finally {
      end();
    }
  }

  /**
   * Unregister and stop. The device keeps its credential for the next visit. The device is released before the call returns:
   * another `Phone` can connect at once.
   */
  async close(): Promise<void> {
    const disconnected = this.#stop();
    this.#source.close();
    this.#become("idle");
    await disconnected;
  }

  #begin(): Run {
    this.#rejections = 0;
    try {
      return (this.#run = new Run(claimDevice(this, this.#options.url, this.#options.deviceId)));
    } catch (error) {
      this.#fail(error as DialtoneError);
      throw error;
    }
  }

  /** End the run, and disconnect. */
  #stop(after?: Promise<unknown>): Promise<void> {
    const connection = this.#connection;
    this.#run?.end(after);
    this.#run = this.#work = this.#connection = undefined;
    return connection?.close() ?? Promise.resolve();
  }

  #untilReady(run: Run): Promise<void> {
    if (this.#state === "ready" || run.hasStopped) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const leave = this.on("state", (state) => {
        if (state === "failed") reject(this.#failure);
        else if (!["ready", "idle", "logged_out"].includes(state)) return;
        leave();
        resolve();
      });
    });
  }

  /** Run one task at a time. Concurrent callers share the running task. */
  #alone(run: Run, task: () => Promise<void>): Promise<void> {
    if (this.#work !== undefined) return this.#work;
    const work = task()
      .catch((thrown: unknown) => {
        if (run.hasStopped) return;
        const error = thrown instanceof DialtoneError ? thrown : new DialtoneError("sdk_failed", false, {}, { cause: thrown });
        if (this.#state === "ready" && this.#connection?.isConnected) this.emit("error", error);
        else this.#fail(error);
        throw error;
      })
      .finally(() => {
        if (this.#work === work) this.#work = undefined;
      });
    this.#work = work;
    return work;
  }

  #fail(error: DialtoneError): void {
    this.#failure = error;
    void this.#stop();
    this.#source.close();
    this.#become("failed");
    this.emit("error", error);
  }

  #inBackground(run: Run, task: () => Promise<void>): void {
    this.#alone(run, task).catch(() => undefined); // reported by an `error` event
  }

  /** Run the task after the current one, which does not know of its cause. */
  async #afterwards(run: Run, task: () => Promise<void>): Promise<void> {
    await this.#work?.catch(() => undefined);
    if (!run.hasStopped) this.#inBackground(run, task);
  }

  async #bringUp(run: Run, fetchLogin: () => Promise<Login>): Promise<void> {
    if (this.#state !== "reconnecting") this.#become("fetching");
    const login = await fetchLogin();
    if (run.hasStopped) return;
    this.#become("connecting");
    const before = this.#connection;
    this.#connection = undefined;
    await before?.close();
    if (!run.hasStopped) this.#open(run, login);
  }

  /** Log in with a new token on the open connection, or reconnect with it. The token is fetched first in both cases. */
  async #renew(run: Run, fetchLogin = () => this.#source.fetch()): Promise<void> {
    const connection = this.#connection;
    if (connection === undefined || !connection.isConnected) {
      this.#become("reconnecting");
      return this.#bringUp(run, fetchLogin);
    }
    const login = await fetchLogin();
    if (run.hasStopped || this.#connection !== connection) return;
    const isAccepted = await connection.login(login.login_token);
    if (run.hasStopped) return;
    if (isAccepted) {
      this.#rejections = 0;
      this.#become("ready");
    } else {
      this.#become("reconnecting");
      await this.#bringUp(run, () => Promise.resolve(login));
    }
  }

  #renewInBackground(): void {
    const run = this.#run;
    if (run !== undefined) this.#inBackground(run, () => this.#renew(run));
  }

  #open(run: Run, login: Login): void {
    const client = this.#options.createClient({
      ...login.rtc?.client_options,
      login_token: login.login_token,
      ...(login.rtc?.host ? { host: login.rtc.host } : {}),
      ...(login.rtc?.region ? { region: login.rtc.region } : {}),
    });
    const listener: ConnectionListener<Client> = {
      onReady: () => {
        this.#rejections = 0;
        this.#become("ready");
        this.emit("ready", client);
      },
      onCall: (call) => this.emit("call", call),
      onLost: () => this.#reconnect(connection),
      onTokenExpiring: () => {
        if (this.#source.isDue) void this.refresh().catch(() => undefined);
      },
      onRejected: (cause) => this.#loginRejected(run, connection, cause),
      onTimeout: () => this.#timedOut(run, connection),
    };
    const connection: Connection<Client> = new Connection(client, listener, this.#clock, this.#options.loginTimeoutMs);
    this.#connection = connection;
    connection.open();
  }

  /** The SDK reconnects by itself with its token. Only an expired token must be replaced first. */
  #reconnect(connection: Connection<Client>): void {
    if (this.#state === "ready") {
      this.#become("reconnecting");
      connection.expectReconnect();
    }
    if (this.#source.hasExpired) this.#renewInBackground();
  }

  #timedOut(run: Run, connection: Connection<Client>): void {
    void this.#afterwards(run, async () => {
      if (this.#connection !== connection || this.#state === "ready") return;
      this.emit("error", new DialtoneError("line_down", true));
      await this.#renew(run);
    });
  }

  /**
   * Telnyx rejected the login. The credential may be too new, or it was deleted. Minting a new token distinguishes the two:
   * the service returns `credential_ended` if the credential was deleted, and then the token source requests a new one.
   */
  #loginRejected(run: Run, connection: Connection<Client>, cause: unknown): void {
    void this.#afterwards(run, async () => {
      if (this.#connection !== connection) return;
      this.#become("reconnecting");
      this.#rejections += 1;
      if (this.#rejections > MAX_REJECTIONS) throw new DialtoneError("telnyx_rejected", false, {}, { cause });
      await sleep(pause(this.#rejections), this.#clock, run.stopped);
      if (run.hasStopped || this.#connection !== connection) return;
      await this.#bringUp(run, () => this.#source.refresh());
    });
  }

  #showLogin(login: LoginInfo): void {
    this.emit("login", login);
    const usableIn = Date.parse(login.usable_at) - Date.parse(login.server_time);
    if (usableIn > 0 && this.#state !== "ready") this.#become("waiting");
  }

  #become(state: State): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}

/**
 * The phone of one browser tab: fetches a login, connects the Telnyx SDK with it, refreshes it, and revokes it.
 *
 * The page owns the SDK: `createClient` creates its client, and calls are the SDK's calls. This class sends one request at a
 * time, waits until a new credential works, refreshes on time even if the machine slept, and gets a new token *before* it
 * reconnects a lost socket.
 */

import { Api, type Login } from "./api.js";
import type { CallOf, Events, PhoneOptions, SdkClient, State } from "./contract.js";
import { claimDevice, type Claim } from "./device.js";
import { DialtoneError } from "./errors.js";
import { Emitter } from "./events.js";
import { Alarm, pause, sleep, unlessAborted } from "./schedule.js";

const LOGIN_FAILED = 46001;
/** A fallback if the alarm failed. The SDK warns two minutes before the expiry, so immediately for short-lived tokens. */
const TOKEN_EXPIRING_SOON = 34001;
const GONE: ReadonlySet<string> = new Set(["credential_ended", "credential_not_found"]);
/** The shortest delay until a refresh. */
const MIN_REFRESH_MS = 500;
/** Delays after a refresh that failed with an error that is not retryable, while the connection still works. */
const FIRST_REFRESH_PAUSE_MS = 30_000;
const MAX_REFRESH_PAUSE_MS = 300_000;
/** Consecutive login rejections by Telnyx before the phone fails. A new credential may cause some. */
const MAX_REJECTIONS = 4;
const LOGOUT_TRIES = 3;
const LOGIN_TIMEOUT_MS = 20_000;
/** After a lost connection, the timeout is multiplied by this, because the SDK can restore calls in progress. */
const CALL_TIMEOUT_FACTOR = 3;
/** Timeout of a login on an open socket. After it, the connection counts as lost. */
const RELOGIN_MS = 5_000;

/** The time from `connect()` to `close()`, `logout()` or a failure, and what the phone holds in it. */
class Run {
  readonly #stop = new AbortController();
  readonly #abort = new AbortController();
  readonly api: Api;

  constructor(
    options: PhoneOptions<never>,
    readonly claim: Claim,
  ) {
    const accessToken = () => unlessAborted(options.accessToken(), this.stopped);
    this.api = new Api({ url: options.url, accessToken, ...(options.fetch ? { fetch: options.fetch } : {}) }, this.aborted);
  }

  /** Aborted when the run ends: nothing new begins. */
  get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  /** Aborted when the result of a request in flight is not needed. A logout needs it. */
  get aborted(): AbortSignal {
    return this.#abort.signal;
  }

  get hasStopped(): boolean {
    return this.stopped.aborted;
  }

  /** `after`: what must end before the device can be used again. A request in flight is then finished first. */
  end(after?: Promise<unknown>): void {
    this.#stop.abort();
    if (after === undefined) this.#abort.abort();
    this.claim.release(after);
  }
}

export class Phone<Client extends SdkClient = SdkClient> extends Emitter<Events<Client>> {
  readonly #options: PhoneOptions<Client>;
  readonly #api: Api;
  #state: State = "idle";
  #run: Run | undefined;
  #client: Client | undefined;
  #login: Login | undefined;
  #expiresAt = 0;
  #refreshAt = 0;
  #alarm: Alarm | undefined;
  #work: Promise<void> | undefined;
  #refusals = 0;
  #failedRefreshes = 0;
  #failure: DialtoneError | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;

  /** Throws `invalid_options`. */
  constructor(options: PhoneOptions<Client>) {
    super();
    this.#api = new Api(options);
    if (typeof options.createClient !== "function") {
      const cause = new TypeError("createClient must be a function");
      throw new DialtoneError("invalid_options", false, {}, { cause });
    }
    this.#options = options;
  }

  get state(): State {
    return this.#state;
  }

  /** The SDK's client; undefined before the first connection. */
  get client(): Client | undefined {
    return this.#client;
  }

  /** The SIP URI of this tab, for incoming calls. */
  get sipUri(): string | undefined {
    return this.#login?.sip_uri;
  }

  /**
   * Fetch a login and register. Resolves when the phone is ready, or when `close()` or `logout()` ends the attempt. Rejects
   * with a DialtoneError that a retry cannot fix. A phone that is already connected keeps its connection.
   */
  async connect(): Promise<void> {
    const run = this.#run ?? this.#begin();
    if (this.#client === undefined) await this.#alone(run, () => this.#bringUp(run, () => this.#issue(run)));
    await this.#untilReady(run);
  }

  /** Fetch a new token now, and log in with it on the open connection. */
  async refresh(): Promise<void> {
    const run = this.#run;
    if (run !== undefined) await this.#alone(run, () => this.#renew(run, () => this.#mint(run)));
  }

  /** Unregister, and delete the credential. Its tokens no longer work. */
  async logout(): Promise<void> {
    const work = this.#work;
    let end: () => void = () => undefined;
    const client = this.#stop(new Promise<void>((resolve) => (end = resolve)));
    try {
      await disconnect(client);
      await work?.catch(() => undefined); // a login in flight must be revoked too
      await this.#revoke();
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
    const client = this.#stop();
    this.#become("idle");
    await disconnect(client);
  }

  #begin(): Run {
    this.#refusals = this.#failedRefreshes = 0;
    try {
      const claim = claimDevice(this, this.#options.url, this.#options.deviceId);
      return (this.#run = new Run(this.#options as PhoneOptions<never>, claim));
    } catch (error) {
      this.#fail(error as DialtoneError);
      throw error;
    }
  }

  /** End the run, and return the client that must be disconnected. */
  #stop(after?: Promise<unknown>): Client | undefined {
    const client = this.#client;
    this.#run?.end(after);
    this.#run = this.#work = this.#client = undefined;
    clearTimeout(this.#silence);
    this.#alarm?.cancel();
    return client;
  }

  async #revoke(): Promise<void> {
    const id = this.#login?.id;
    this.#login = undefined;
    for (let tries = 1; id !== undefined; tries += 1) {
      try {
        await this.#api.revoke(id);
        return;
      } catch (error) {
        const mayPass = error instanceof DialtoneError && error.retryable && tries < LOGOUT_TRIES;
        if (!mayPass) throw error;
        await sleep(Math.max(error.details.retryAfterMs ?? 0, pause(tries)));
      }
    }
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
        if (this.#state === "ready" && this.#client?.connected) {
          this.#refreshLater(run);
          this.emit("error", error);
        } else {
          this.#fail(error);
        }
        throw error;
      })
      .finally(() => {
        if (this.#work === work) this.#work = undefined;
      });
    this.#work = work;
    return work;
  }

  /** The connection works without the refresh. Any error may be gone before the login expires. */
  #refreshLater(run: Run): void {
    this.#failedRefreshes += 1;
    this.#ringIn(run, pause(this.#failedRefreshes, FIRST_REFRESH_PAUSE_MS, MAX_REFRESH_PAUSE_MS));
  }

  #fail(error: DialtoneError): void {
    this.#failure = error;
    void disconnect(this.#stop());
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
    const login = await this.#persist(run, fetchLogin);
    this.#take(run, login);
    if (run.hasStopped) return;
    const wait = Date.parse(login.usable_at) - Date.parse(login.server_time);
    if (wait > 0) {
      this.#become("waiting");
      await sleep(wait, run.stopped);
    }
    if (run.hasStopped) return;
    this.#become("connecting");
    const before = this.#client;
    this.#client = undefined;
    await disconnect(before);
    if (!run.hasStopped) this.#start(run, login);
  }

  /** Log in with a new token on the open connection, or reconnect with it. The token is fetched first in both cases. */
  async #renew(run: Run, fetchLogin = () => this.#issue(run)): Promise<void> {
    const client = this.#client;
    if (client === undefined || !client.connected) {
      this.#become("reconnecting");
      return this.#bringUp(run, fetchLogin);
    }
    const login = await this.#persist(run, fetchLogin);
    if (run.hasStopped || this.#client !== client) return;
    this.#take(run, login);
    if (!(await this.#relogin(run, client, login)) && !run.hasStopped) {
      this.#become("reconnecting");
      await this.#bringUp(run, () => Promise.resolve(login));
    }
  }

  async #issue(run: Run): Promise<Login> {
    const deviceId = await unlessAborted(run.claim.id, run.stopped);
    return run.api.issue(deviceId, this.#options.platform ?? "browser", this.#options.label);
  }

  /** Mint a new token; if the credential was deleted, issue a new credential to the device. */
  async #mint(run: Run): Promise<Login> {
    if (this.#login === undefined) return this.#issue(run);
    try {
      return await run.api.refresh(this.#login.id);
    } catch (error) {
      const isGone = error instanceof DialtoneError && GONE.has(error.code);
      if (!isGone) throw error;
      return this.#issue(run);
    }
  }

  /** Log in on the open socket. Calls continue. */
  #relogin(run: Run, client: Client, login: Login): Promise<boolean> {
    return new Promise((resolve) => {
      const done = (isGood: boolean) => {
        clearTimeout(timer);
        run.stopped.removeEventListener("abort", end);
        if (isGood && !run.hasStopped) {
          this.#refusals = 0;
          this.#become("ready");
        }
        resolve(isGood);
      };
      const end = () => done(false);
      const timer = setTimeout(end, RELOGIN_MS);
      run.stopped.addEventListener("abort", end);
      const creds = { login_token: login.login_token ?? "" };
      try {
        client.login({ creds, onSuccess: () => done(true), onError: end });
      } catch {
        end();
      }
    });
  }

  #start(run: Run, login: Login): void {
    const client = this.#options.createClient({
      login_token: login.login_token ?? "",
      ...(login.rtc?.host ? { host: login.rtc.host } : {}),
      ...(login.rtc?.region ? { region: login.rtc.region } : {}),
    });
    this.#client = client;
    const isOurs = () => this.#client === client && !run.hasStopped;
    this.#expectReady(run, client, 1);
    client.on("telnyx.ready", () => {
      if (!isOurs()) return;
      clearTimeout(this.#silence);
      this.#refusals = 0;
      this.#become("ready");
      this.emit("ready", client);
    });
    client.on("telnyx.notification", (event) => {
      if (isOurs() && event?.type === "callUpdate") this.emit("call", event.call as CallOf<Client>);
    });
    client.on("telnyx.warning", (event) => {
      const isWarned = event?.warning?.code === TOKEN_EXPIRING_SOON && Date.now() >= this.#refreshAt;
      if (isOurs() && isWarned) void this.refresh().catch(() => undefined);
    });
    client.on("telnyx.socket.close", () => {
      if (isOurs()) this.#lineLost(run, client);
    });
    client.on("telnyx.error", (event) => {
      if (isOurs() && event?.error?.code === LOGIN_FAILED) this.#loginRefused(run, client, event.error);
    });
    // A failure is an event of the SDK, or the phone is not ready in time.
    void Promise.resolve(client.connect()).catch(() => undefined);
  }

  /** The SDK reconnects by itself with its token. Only an expired token must be replaced first. */
  #lineLost(run: Run, client: Client): void {
    if (this.#state === "ready") {
      this.#become("reconnecting");
      this.#expectReady(run, client, CALL_TIMEOUT_FACTOR);
    }
    if (Date.now() >= this.#expiresAt) this.#inBackground(run, () => this.#renew(run));
  }

  /**
   * Reconnect if the phone is not ready in time. The SDK waits without a limit for the response to a login, and stops
   * reconnecting after ten attempts. The next refresh may be hours away.
   */
  #expectReady(run: Run, client: Client, times: number): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(
      () => {
        void this.#afterwards(run, async () => {
          if (this.#client !== client || this.#state === "ready") return;
          this.emit("error", new DialtoneError("line_down", true));
          await this.#renew(run);
        });
      },
      (this.#options.loginTimeoutMs ?? LOGIN_TIMEOUT_MS) * times,
    );
  }

  /**
   * Telnyx rejected the login. The credential may be too new, or it was deleted. Minting a new token distinguishes the two:
   * the service returns `credential_ended` if the credential was deleted, and then the phone requests a new one.
   */
  #loginRefused(run: Run, client: Client, cause: unknown): void {
    clearTimeout(this.#silence);
    void this.#afterwards(run, async () => {
      if (this.#client !== client) return;
      this.#become("reconnecting");
      this.#refusals += 1;
      if (this.#refusals > MAX_REJECTIONS) throw new DialtoneError("telnyx_rejected", false, {}, { cause });
      await sleep(pause(this.#refusals), run.stopped);
      if (run.hasStopped || this.#client !== client) return;
      await this.#bringUp(run, () => this.#mint(run));
    });
  }

  /** Store a new login, and set the alarm for its refresh. */
  #take(run: Run, login: Login): void {
    if (run.aborted.aborted) return;
    this.#login = login;
    if (run.hasStopped) return;
    const now = Date.parse(login.server_time);
    this.#expiresAt = Date.now() + Date.parse(login.expires_at) - now;
    this.#refreshAt = Date.now() + Date.parse(login.refresh_after) - now;
    this.#failedRefreshes = 0;
    const refreshIn = Date.parse(login.refresh_after) - now;
    this.#ringIn(run, refreshIn > MIN_REFRESH_MS ? refreshIn : MIN_REFRESH_MS); // also if it is not a number
    const { login_token: _, login: __, password: ___, ...shown } = login;
    this.emit("login", shown);
  }

  #ringIn(run: Run, milliseconds: number): void {
    this.#alarm?.cancel();
    this.#alarm = new Alarm(milliseconds, () => this.#inBackground(run, () => this.#renew(run)));
  }

  /** Retry while the error is retryable, after the delay that the service requests. */
  async #persist<Result>(run: Run, attempt: () => Promise<Result>): Promise<Result> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof DialtoneError) || !error.retryable || run.hasStopped) throw error;
        this.emit("error", error);
        const wait = Math.max(error.details.retryAfterMs ?? 0, pause(tries));
        await sleep(wait, run.stopped, error.code === "network");
        if (run.hasStopped) throw error;
      }
    }
  }

  #become(state: State): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}

/** The SDK may reject if its socket is already closed. */
async function disconnect(client: SdkClient | undefined): Promise<void> {
  try {
    await client?.disconnect();
  } catch {
    /* it is disconnected */
  }
}

/**
 * The phone of one browser tab: fetches a login, connects the Telnyx SDK with it, refreshes it, and revokes it.
 *
 * The page owns the SDK: `createClient` creates its client, and calls are the SDK's calls. This class sends one request at a
 * time, waits until a new credential works, refreshes on time even if the machine slept, and gets a new token *before* it
 * reconnects a lost socket.
 */

import { Api, type Login } from "./api.js";
import type { Events, PhoneOptions, SdkClient, State } from "./contract.js";
import { tabDeviceId } from "./device.js";
import { DialtoneError } from "./errors.js";
import { Emitter } from "./events.js";
import { Alarm } from "./schedule.js";

const LOGIN_FAILED = 46001;
/** A fallback if the alarm failed. The SDK warns two minutes before the expiry, so immediately for short-lived tokens. */
const TOKEN_EXPIRING_SOON = 34001;
const GONE: ReadonlySet<string> = new Set(["credential_ended", "credential_not_found"]);
/** Delays between attempts without `Retry-After`: doubled each time, with 25 % jitter in both directions. */
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 30_000;
/** Consecutive login rejections by Telnyx before the phone fails. A new credential may cause some. */
const MAX_REJECTIONS = 4;
const LOGOUT_TRIES = 3;
const LOGIN_TIMEOUT_MS = 20_000;
/** After a lost connection, the timeout is multiplied by this, because the SDK can restore calls in progress. */
const CALL_TIMEOUT_FACTOR = 3;
/** Timeout of a login on an open socket. After it, the connection counts as lost. */
const RELOGIN_MS = 5_000;

export class Phone<Client extends SdkClient = SdkClient> extends Emitter<Events<Client>> {
  readonly #options: PhoneOptions<Client>;
  readonly #api: Api;
  #state: State = "idle";
  #client: Client | undefined;
  #login: Login | undefined;
  #expiresAt = 0;
  #refreshAt = 0;
  #alarm: Alarm | undefined;
  #work: Promise<void> | undefined;
  #refusals = 0;
  #hasStopped = true;
  #wake: (() => void) | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #deviceId: string | undefined;

  constructor(options: PhoneOptions<Client>) {
    super();
    this.#options = options;
    this.#api = new Api(options);
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

  /** Fetch a login and register. Resolves when the phone is ready; rejects with an error that a retry cannot fix. */
  async connect(): Promise<void> {
    this.#hasStopped = false;
    this.#refusals = 0;
    await this.#alone(() => this.#bringUp(() => this.#issue()));
    await this.#untilReady();
  }

  /** Fetch a new token now, and log in with it on the open connection. */
  async refresh(): Promise<void> {
    if (!this.#hasStopped) await this.#alone(() => this.#renew(() => this.#mint()));
  }

  /** Unregister, and delete the credential. Its tokens no longer work. */
  async logout(): Promise<void> {
    await this.#stop();
    await this.#work?.catch(() => undefined); // a login in flight must be revoked too
    const id = this.#login?.id;
    this.#login = undefined;
    for (let tries = 1; id !== undefined; tries += 1) {
      try {
        await this.#api.revoke(id);
        break;
      } catch (error) {
        const mayPass = error instanceof DialtoneError && error.retryable && tries < LOGOUT_TRIES;
        if (!mayPass) {
          this.#become("idle");
          throw error;
        }
        await this.#sleep(Math.max(error.details.retryAfterMs ?? 0, pause(tries)));
      }
    }
    this.#become("logged_out");
  }

  /** Unregister and stop. The device keeps its credential for the next visit. */
  async close(): Promise<void> {
    await this.#stop();
    this.#become("idle");
  }

  async #stop(): Promise<void> {
    this.#hasStopped = true;
    clearTimeout(this.#silence);
    this.#alarm?.cancel();
    this.#wake?.();
    const client = this.#client;
    this.#client = undefined;
    await client?.disconnect();
  }

  #untilReady(): Promise<void> {
    if (this.#state === "ready" || this.#hasStopped) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const leave = [
        this.on("state", (state) => {
          if (!["ready", "idle", "logged_out"].includes(state)) return;
          for (const one of leave) one();
          resolve();
        }),
        this.on("error", (error) => {
          if (error.retryable) return;
          for (const one of leave) one();
          reject(error);
        }),
      ];
    });
  }

  /** Run one task at a time. Concurrent callers share the running task. */
  #alone(work: () => Promise<void>): Promise<void> {
    this.#work ??= work()
      .catch((error: unknown) => {
        if (this.#hasStopped) return;
        this.#become("failed");
        this.emit("error", error as DialtoneError);
        throw error;
      })
      .finally(() => (this.#work = undefined));
    return this.#work;
  }

  #inBackground(work: () => Promise<void>): void {
    this.#alone(work).catch(() => undefined); // reported by an `error` event
  }

  /** Run the task after the current one, which does not know of its cause. */
  async #afterwards(work: () => Promise<void>): Promise<void> {
    await this.#work?.catch(() => undefined);
    if (!this.#hasStopped) this.#inBackground(work);
  }

  async #bringUp(fetchLogin: () => Promise<Login>): Promise<void> {
    if (this.#state !== "reconnecting") this.#become("fetching");
    const login = await this.#persist(fetchLogin);
    this.#take(login);
    if (this.#hasStopped) return;
    const wait = Date.parse(login.usable_at) - Date.parse(login.server_time);
    if (wait > 0) {
      this.#become("waiting");
      await this.#sleep(wait);
    }
    if (this.#hasStopped) return;
    this.#become("connecting");
    const before = this.#client;
    this.#client = undefined;
    await before?.disconnect();
    this.#client = this.#start(login);
  }

  /** Log in with a new token on the open connection, or reconnect with it. The token is fetched first in both cases. */
  async #renew(fetchLogin = () => this.#issue()): Promise<void> {
    const client = this.#client;
    if (client === undefined || !client.connected) {
      this.#become("reconnecting");
      return this.#bringUp(fetchLogin);
    }
    const login = await this.#persist(fetchLogin);
    if (this.#hasStopped || this.#client !== client) return;
    this.#take(login);
    if (!(await this.#relogin(client, login))) {
      this.#become("reconnecting");
      await this.#bringUp(() => Promise.resolve(login));
    }
  }

  async #issue(): Promise<Login> {
    this.#deviceId ??= this.#options.deviceId ?? (await tabDeviceId());
    return this.#api.issue(this.#deviceId, this.#options.platform ?? "browser", this.#options.label);
  }

  /** Mint a new token; if the credential was deleted, issue a new credential to the device. */
  async #mint(): Promise<Login> {
    if (this.#login === undefined) return this.#issue();
    try {
      return await this.#api.refresh(this.#login.id);
    } catch (error) {
      const isGone = error instanceof DialtoneError && GONE.has(error.code);
      if (!isGone) throw error;
      return this.#issue();
    }
  }

  /** Log in on the open socket. Calls continue. */
  #relogin(client: Client, login: Login): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), RELOGIN_MS);
      const done = (isGood: boolean) => {
        clearTimeout(timer);
        if (isGood) {
          this.#refusals = 0;
          this.#become("ready");
        }
        resolve(isGood);
      };
      client.login({
        creds: { login_token: login.login_token ?? "" },
        onSuccess: () => done(true),
        onError: () => done(false),
      });
    });
  }

  #start(login: Login): Client {
    const client = this.#options.createClient({
      login_token: login.login_token ?? "",
      ...(login.rtc?.host ? { host: login.rtc.host } : {}),
      ...(login.rtc?.region ? { region: login.rtc.region } : {}),
    });
    const isOurs = () => this.#client === client && !this.#hasStopped;
    this.#expectReady(client, 1);
    client.on("telnyx.ready", () => {
      if (!isOurs()) return;
      clearTimeout(this.#silence);
      this.#refusals = 0;
      this.#become("ready");
      this.emit("ready", client);
    });
    client.on("telnyx.notification", (event) => {
      if (isOurs() && event?.type === "callUpdate") this.emit("call", event.call);
    });
    client.on("telnyx.warning", (event) => {
      const isWarned = event?.warning?.code === TOKEN_EXPIRING_SOON && Date.now() >= this.#refreshAt;
      if (isOurs() && isWarned) void this.refresh().catch(() => undefined);
    });
    client.on("telnyx.socket.close", () => {
      if (isOurs()) this.#lineLost(client);
    });
    client.on("telnyx.error", (event) => {
      if (isOurs() && event?.error?.code === LOGIN_FAILED) this.#loginRefused(client);
    });
    void client.connect();
    return client;
  }

  /** The SDK reconnects by itself with its token. Only an expired token must be replaced first. */
  #lineLost(client: Client): void {
    if (this.#state === "ready") {
      this.#become("reconnecting");
      this.#expectReady(client, CALL_TIMEOUT_FACTOR);
    }
    if (Date.now() >= this.#expiresAt) this.#inBackground(() => this.#renew());
  }

  /**
   * Reconnect if the phone is not ready in time. The SDK waits without a limit for the response to a login, and stops
   * reconnecting after ten attempts. The next refresh may be hours away.
   */
  #expectReady(client: Client, times: number): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(
      () => {
        void this.#afterwards(async () => {
          if (this.#client !== client || this.#state === "ready") return;
          this.emit("error", new DialtoneError("line_down", true));
          await this.#renew();
        });
      },
      (this.#options.loginTimeoutMs ?? LOGIN_TIMEOUT_MS) * times,
    );
  }

  /**
   * Telnyx rejected the login. The credential may be too new, or it was deleted. Minting a new token distinguishes the two:
   * the service returns `credential_ended` if the credential was deleted, and then the phone requests a new one.
   */
  #loginRefused(client: Client): void {
    clearTimeout(this.#silence);
    void this.#afterwards(async () => {
      if (this.#client !== client) return;
      this.#refusals += 1;
      if (this.#refusals > MAX_REJECTIONS) throw new DialtoneError("login_refused", false);
      this.#become("reconnecting");
      await this.#sleep(pause(this.#refusals));
      if (this.#hasStopped || this.#client !== client) return;
      await this.#bringUp(() => this.#mint());
    });
  }

  /** Store a new login, and set the alarm for its refresh. */
  #take(login: Login): void {
    this.#login = login;
    const now = Date.parse(login.server_time);
    this.#expiresAt = Date.now() + Date.parse(login.expires_at) - now;
    this.#alarm?.cancel();
    if (this.#hasStopped) return;
    const delay = Math.max(Date.parse(login.refresh_after) - now, FIRST_PAUSE_MS);
    this.#refreshAt = Date.now() + Date.parse(login.refresh_after) - now;
    this.#alarm = new Alarm(delay, () => this.#inBackground(() => this.#renew()));
    const { login_token: _, login: __, password: ___, ...shown } = login;
    this.emit("login", shown);
  }

  /** Retry while the error is retryable, after the delay that the service requests. */
  async #persist<Result>(attempt: () => Promise<Result>): Promise<Result> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof DialtoneError) || !error.retryable || this.#hasStopped) throw error;
        this.emit("error", error);
        await this.#sleep(Math.max(error.details.retryAfterMs ?? 0, pause(tries)), error.code === "network");
        if (this.#hasStopped) throw error;
      }
    }
  }

  /** Wait. `close()` ends the wait early, and with `untilOnline` the `online` event too. */
  #sleep(milliseconds: number, untilOnline = false): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        globalThis.removeEventListener?.("online", done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      if (untilOnline) globalThis.addEventListener?.("online", done);
      this.#wake = done;
    });
  }

  #become(state: State): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}

function pause(tries: number): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), MAX_PAUSE_MS) * (0.75 + Math.random() / 2);
}

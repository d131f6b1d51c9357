/**
 * The phone of one tab: fetches a login, brings the Telnyx SDK up on it, keeps it fresh, and gives it back.
 *
 * The SDK stays the page's own: `createClient` makes it, and calls are the SDK's calls. What lives here is what every
 * frontend otherwise gets wrong: one fetch at a time, the wait of a brand-new credential, a refresh that survives sleep,
 * and a fresh token *before* a dead socket is opened again.
 */

import { Api, type Login } from "./api.js";
import type { Events, PhoneOptions, SdkClient, State } from "./contract.js";
import { tabDeviceId } from "./device.js";
import { DialtoneError } from "./errors.js";
import { Emitter } from "./events.js";
import { Alarm } from "./schedule.js";

const LOGIN_FAILED = 46001;
/** A backstop for an alarm that failed. It comes two minutes before the end, so for short-lived tokens at once. */
const TOKEN_EXPIRING_SOON = 34001;
const GONE: ReadonlySet<string> = new Set(["credential_ended", "credential_not_found"]);
/** Waits between attempts where the service names none: doubled each time, spread by half. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** Refusals by Telnyx in a row after which the phone gives up. A brand-new credential may need a few. */
const MOST_REFUSALS = 4;
const LOGOUT_TRIES = 3;
const LOGIN_TIMEOUT_MS = 20_000;
/** A line that fell is left to the SDK this much longer: calls may still be going on, and it can keep them. */
const PATIENCE_FOR_CALLS = 3;
/** A login on the live socket that says nothing for so long is taken for a dead line. */
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

  /** The SDK's client, once there is one. */
  get client(): Client | undefined {
    return this.#client;
  }

  /** What others dial to reach this tab. */
  get sipUri(): string | undefined {
    return this.#login?.sip_uri;
  }

  /** Fetch a login and register. Ends when the phone is ready; rejects where trying again cannot help. */
  async connect(): Promise<void> {
    this.#hasStopped = false;
    this.#refusals = 0;
    await this.#alone(() => this.#bringUp(() => this.#issue()));
    await this.#untilReady();
  }

  /** Fetch a new token now, and use it on the live line. */
  async refresh(): Promise<void> {
    if (!this.#hasStopped) await this.#alone(() => this.#renew(() => this.#mint()));
  }

  /** Unregister, and have the credential deleted: what this tab had is worth nothing afterwards. */
  async logout(): Promise<void> {
    await this.#stop();
    await this.#work?.catch(() => undefined); // a login on its way in is one to give back, too
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

  /** Unregister and stop; the device keeps its credential for the next time. */
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

  /** One piece of work at a time; whoever comes meanwhile waits for that one. */
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
    this.#alone(work).catch(() => undefined); // told as an `error` event
  }

  /** As above, behind the work that is going on: for what that work cannot know yet. */
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

  /** A new token for the live line; without one, a new line. The token comes first in both cases. */
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

  /** A token minted now; if the credential is gone, a new one for the device. */
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

  /** A login on the socket as it is. Calls go on. */
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

  /** The SDK reconnects by itself with the token it has; only a token that has run out needs us first. */
  #lineLost(client: Client): void {
    if (this.#state === "ready") {
      this.#become("reconnecting");
      this.#expectReady(client, PATIENCE_FOR_CALLS);
    }
    if (Date.now() >= this.#expiresAt) this.#inBackground(() => this.#renew());
  }

  /**
   * The SDK waits for ever for a login that nobody answers, and gives a lost line up after ten tries. Neither may leave a
   * phone dead that has hours to go to its next refresh: in time, the line is made anew.
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
   * Telnyx said no. For a brand-new credential that passes; otherwise the credential may be gone. A freshly minted token
   * tells the two apart: the service answers `credential_ended` if it is gone, and then makes the device a new one.
   */
  #loginRefused(client: Client): void {
    clearTimeout(this.#silence);
    void this.#afterwards(async () => {
      if (this.#client !== client) return;
      this.#refusals += 1;
      if (this.#refusals > MOST_REFUSALS) throw new DialtoneError("login_refused", false);
      this.#become("reconnecting");
      await this.#sleep(pause(this.#refusals));
      if (this.#hasStopped || this.#client !== client) return;
      await this.#bringUp(() => this.#mint());
    });
  }

  /** A login came in: remember it, and set the alarm for the next. */
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

  /** Again and again while that can help, waiting as long as the service asks. */
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

  /** Wait; `close()` ends it, and so does the network's return where that was what was missing. */
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
  return Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
}

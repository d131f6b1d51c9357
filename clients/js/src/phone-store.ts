/** The state of a `Phone` as values that a user interface can compare and subscribe to. */

import { Api } from "./api.js";
import type { CallOf, CallOptions, PhoneOptions, SdkClient, State } from "./contract.js";
import type { DialtoneError } from "./errors.js";
import { Phone } from "./phone.js";

export interface PhoneView<Client extends SdkClient> {
  readonly state: State;
  /** The last error; undefined when the phone is ready. Unless the state is `failed`, the phone is retrying. */
  readonly error: DialtoneError | undefined;
  /** The SIP URI of this device, for incoming calls. */
  readonly sipUri: string | undefined;
  /** To spread into the options of the SDK's `newCall`: the caller ID, if the service's policy sets one. */
  readonly callOptions: CallOptions;
  /** The SDK's client; undefined before the first connection. */
  readonly client: Client | undefined;
}

export interface CallView<Client extends SdkClient> {
  /** The newest call; undefined without a call. */
  readonly call: CallOf<Client> | undefined;
  /** The state of `call` in the SDK's words, such as `ringing` or `active`. */
  readonly state: string | undefined;
  /** All calls, the oldest first. */
  readonly calls: readonly CallOf<Client>[];
}

/** The SDK's states of a call that no longer exists. */
const ENDED: ReadonlySet<unknown> = new Set(["destroy", "purge"]);

export const NO_PHONE: PhoneView<never> = { state: "idle", error: undefined, sipUri: undefined, callOptions: {}, client: undefined };
export const NO_CALL: CallView<never> = { call: undefined, state: undefined, calls: [] };

export class PhoneStore<Client extends SdkClient> {
  readonly #listeners = new Set<() => void>();
  readonly #calls = new Map<unknown, CallOf<Client>>();
  #phone: Phone<Client> | undefined;
  #api: Api | undefined;
  #view: PhoneView<Client> = NO_PHONE;
  #callView: CallView<Client> = NO_CALL;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };
  readonly view = (): PhoneView<Client> => this.#view;
  readonly callView = (): CallView<Client> => this.#callView;
  /** The API with the user's access token; undefined while no user is signed in. */
  readonly api = (): Api | undefined => this.#api;

  /** Connect the phone again. A failure is shown in `error`. */
  readonly connect = async (): Promise<void> => {
    await this.#phone?.connect().catch(() => undefined);
  };

  /**
   * Unregister, and delete the credential of this device. Returns whether the user can sign out: the credential was deleted, or
   * the session has already ended, so that no request can delete it. A failure is shown in `error`.
   */
  readonly logout = async (): Promise<boolean> => {
    const phone = this.#phone;
    if (phone === undefined) return true;
    try {
      await phone.logout();
      return true;
    } catch (error) {
      this.#showError(phone, error as DialtoneError);
      return (error as DialtoneError).code === "not_signed_in";
    }
  };

  /** Create a phone and connect it. Returns a function that closes it. */
  start(options: PhoneOptions<Client>): () => void {
    let phone: Phone<Client>;
    try {
      phone = new Phone(options);
    } catch (error) {
      this.#show({ ...NO_PHONE, state: "failed", error: error as DialtoneError });
      return () => this.#reset();
    }
    this.#phone = phone;
    this.#api = new Api(options);
    const update = () => this.#update(phone);
    phone.on("state", update);
    phone.on("login", update);
    phone.on("error", (error) => this.#showError(phone, error));
    phone.on("call", (call) => this.#showCall(phone, call));
    void this.connect();
    return () => {
      void phone.close();
      this.#reset();
    };
  }

  #reset(): void {
    this.#phone = this.#api = undefined;
    this.#calls.clear();
    this.#callView = NO_CALL;
    this.#show(NO_PHONE);
  }

  /** Events of a phone that was replaced are ignored: a logout of the previous user may still be running. */
  #update(phone: Phone<Client>): void {
    if (this.#phone !== phone) return;
    const { state, sipUri, callOptions, client } = phone;
    if (client !== this.#view.client) {
      this.#calls.clear(); // they belong to the previous client
      this.#callView = NO_CALL;
    }
    this.#show({ state, sipUri, callOptions, client, error: state === "ready" ? undefined : this.#view.error });
  }

  #showError(phone: Phone<Client>, error: DialtoneError): void {
    if (this.#phone === phone) this.#show({ ...this.#view, error });
  }

  #showCall(phone: Phone<Client>, call: CallOf<Client>): void {
    if (this.#phone !== phone) return;
    const { id, state } = call as { id?: unknown; state?: unknown };
    if (ENDED.has(state)) this.#calls.delete(id);
    else this.#calls.set(id, call);
    const calls = [...this.#calls.values()];
    const newest = calls.at(-1) as { state?: unknown } | undefined;
    this.#callView = { call: calls.at(-1), state: newest && String(newest.state), calls };
    this.#show(this.#view);
  }

  #show(view: PhoneView<Client>): void {
    this.#view = view;
    for (const listener of [...this.#listeners]) listener();
  }
}

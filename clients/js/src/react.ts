"use client";
/** dialtone-client/react: a provider that keeps a phone for the signed-in user, and hooks that show it. */

import {
  type ReactElement,
  type ReactNode,
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";

import type { Api, Device } from "./api.js";
import type { PhoneOptions, SdkClient, State } from "./contract.js";
import type { DialtoneError } from "./errors.js";
import { type CallView, NO_CALL, NO_PHONE, PhoneStore, type PhoneView } from "./phone-store.js";

export type { CallView, PhoneView } from "./phone-store.js";

/** `url`, `user`, `deviceId` and `platform` restart the phone when they change. The functions may differ at every render. */
export interface PhoneProviderProps<Client extends SdkClient> extends PhoneOptions<Client> {
  /** The id of the signed-in user. Without one, no phone exists. */
  user: string | null | undefined;
  children?: ReactNode;
}

export interface PhoneHook<Client extends SdkClient> extends PhoneView<Client> {
  /** Connect again, for example after a failure. A failure is shown in `error`. */
  connect(): Promise<void>;
  /**
   * Unregister, and delete the credential of this device. Returns whether the user can sign out: the credential was deleted, or
   * the session has already ended, so that no request can delete it. A failure is shown in `error`.
   */
  logout(): Promise<boolean>;
}

export interface DevicesHook {
  /** The user's devices; undefined until they are loaded. They are loaded whenever the phone is ready or has failed. */
  devices: readonly Device[] | undefined;
  /** The error of the last request. */
  error: DialtoneError | undefined;
  /** Load the devices again. */
  reload(): void;
  /** Log a device out, and load the devices again. Returns whether it was logged out. A failure is shown in `error`. */
  logout(id: string): Promise<boolean>;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const StoreContext = createContext<PhoneStore<any> | undefined>(undefined);

/**
 * Connects a phone while `user` is signed in, and closes it when the provider unmounts or the user changes. A device has one
 * phone: a second provider with the same device fails with `already_open`.
 */
export function PhoneProvider<Client extends SdkClient>(props: PhoneProviderProps<Client>): ReactElement {
  const { url, user, deviceId, platform, children } = props;
  const [store] = useState(() => new PhoneStore<Client>());
  const current = useRef<{ props: PhoneProviderProps<Client> }>(undefined);

  useEffect(() => {
    if (current.current !== undefined) current.current.props = props;
  });

  useEffect(() => {
    if (!user) return undefined;
    const own = (current.current = { props }); // a phone never uses the access token of the next user
    const { user: _, children: __, ...options } = props;
    const stop = store.start({
      ...options,
      accessToken: () => own.props.accessToken(),
      createClient: (sdkOptions) => own.props.createClient(sdkOptions),
    });
    return () => {
      current.current = undefined;
      stop();
    };
    // The other properties are read when they are used.
  }, [store, url, user, deviceId, platform]);

  return createElement(StoreContext.Provider, { value: store }, children);
}

/** The phone of the nearest `PhoneProvider`. */
export function usePhone<Client extends SdkClient = SdkClient>(): PhoneHook<Client> {
  const store = useStore<Client>("usePhone");
  const view = useSyncExternalStore(store.subscribe, store.view, () => NO_PHONE);
  return { ...view, connect: store.connect, logout: store.logout };
}

/** The calls of the nearest `PhoneProvider`. Renders again whenever a call has a new state. */
export function useCall<Client extends SdkClient = SdkClient>(): CallView<Client> {
  const store = useStore<Client>("useCall");
  return useSyncExternalStore(store.subscribe, store.callView, () => NO_CALL);
}

const SETTLED: ReadonlySet<State> = new Set<State>(["ready", "failed", "logged_out"]);

/** The devices of the signed-in user. */
export function useDevices(): DevicesHook {
  const store = useStore("useDevices");
  const api = useSyncExternalStore(store.subscribe, store.api, () => undefined);
  const isSettled = useSyncExternalStore(store.subscribe, () => SETTLED.has(store.view().state), () => false);
  const [loaded, setLoaded] = useState<{ api?: Api; devices?: Device[]; error?: DialtoneError }>({});
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((last) => last + 1), []);
  const showError = useCallback(
    (error: DialtoneError) => setLoaded((last) => ({ ...(last.api === api ? last : {}), ...(api && { api }), error })),
    [api],
  );

  useEffect(() => {
    if (api === undefined || !isSettled) return undefined;
    let isCurrent = true;
    api.devices().then(
      (devices) => isCurrent && setLoaded({ api, devices }),
      (error: DialtoneError) => isCurrent && showError(error),
    );
    return () => {
      isCurrent = false;
    };
  }, [api, isSettled, round, showError]);

  const logout = useCallback(
    async (id: string) => {
      try {
        await api?.revoke(id);
      } catch (error) {
        showError(error as DialtoneError);
        return false;
      }
      reload();
      return true;
    },
    [api, reload, showError],
  );
  const { devices, error } = loaded.api === api ? loaded : {}; // never those of the previous user
  return { devices, error, reload, logout };
}

function useStore<Client extends SdkClient>(hook: string): PhoneStore<Client> {
  const store = useContext(StoreContext);
  if (store === undefined) throw new Error(`${hook}() needs a <PhoneProvider> above its component`);
  return store as PhoneStore<Client>;
}

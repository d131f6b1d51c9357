/** A device id that is stable for a browser tab and unique to it, and one `Phone` per device in a page. */

import { DialtoneError } from "./errors.js";

const KEY = "dialtone-device";
/** How long a page waits for the lock of its stored id. After a reload, the previous page may hold it for a moment. */
const LOCK_WAIT_MS = 300;

/** The use of a device by one owner in this page. */
export interface Claim {
  readonly id: Promise<string>;
  /** End the claim now. The id of the next claim is available when `after` has settled. */
  release(after?: Promise<unknown>): void;
}

interface HeldId {
  id: string;
  /** Releases the lock. Resolves when the browser has released it. */
  unlock: () => Promise<unknown>;
}

interface Slot {
  owner: object | undefined;
  /** Settles when the previous owner has finished. */
  free: Promise<unknown>;
}

interface PageState {
  /** The last id of this page. Without storage, the only copy. */
  id: string | undefined;
  held: Promise<HeldId> | undefined;
  holders: number;
  unlocked: Promise<unknown>;
  slots: Map<string, Slot>;
}

/** A property of the page, because hot reload and two module formats load this module several times. */
const PAGE = Symbol.for("dialtone-client.page.1");

function page(): PageState {
  const owner = globalThis as { [PAGE]?: PageState };
  return (owner[PAGE] ??= { id: undefined, held: undefined, holders: 0, unlocked: Promise.resolve(), slots: new Map() });
}

/**
 * Claim a device for `owner`. `deviceId` undefined is this tab. `service` separates the devices of two services.
 * Throws `already_open` if another owner has the device.
 */
export function claimDevice(owner: object, service: string, deviceId: string | undefined): Claim {
  const { slots } = page();
  const key = JSON.stringify([service, deviceId ?? null]);
  const slot = slots.get(key) ?? { owner: undefined, free: Promise.resolve() };
  if (slot.owner !== undefined) throw new DialtoneError("already_open", false);
  slots.set(key, slot);
  slot.owner = owner;
  const tab = deviceId === undefined ? holdTabId() : undefined;
  let isReleased = false;
  return {
    id: slot.free.then(() => deviceId ?? (tab as NonNullable<typeof tab>).id),
    release: (after = Promise.resolve()) => {
      if (isReleased) return;
      isReleased = true;
      slot.owner = undefined;
      slot.free = Promise.all([slot.free, after.catch(() => undefined)]);
      tab?.release();
    },
  };
}

/**
 * The id of this tab, stored in `sessionStorage` so that it survives a reload. The page keeps it until it is closed.
 *
 * A duplicated tab starts with a copy of that storage, and two tabs with one SIP identity would receive each other's calls.
 * Therefore each tab holds a Web Lock on its id. A tab that finds the lock of its stored id taken creates a new id.
 */
export function tabDeviceId(): Promise<string> {
  return holdTabId().id;
}

/** The holders in a page share one lock. The last one to leave releases it. */
function holdTabId(): { id: Promise<string>; release: () => void } {
  const state = page();
  state.holders += 1;
  const held = (state.held ??= state.unlocked.then(() => lockedId(state)));
  return {
    id: held.then(({ id }) => id),
    release: () => {
      state.holders -= 1;
      if (state.holders > 0) return;
      state.held = undefined;
      state.unlocked = held.then(({ unlock }) => unlock());
    },
  };
}

async function lockedId(state: PageState): Promise<HeldId> {
  for (const id of new Set([state.id, stored(), newId()])) {
    if (id === undefined) continue;
    const unlock = await lock(`${KEY}-${id}`);
    if (unlock === undefined) continue;
    state.id = id;
    store(id);
    return { id, unlock };
  }
  throw new DialtoneError("already_open", false); // unreachable: no other page knows the new id
}

/** Acquire a Web Lock. Undefined if another tab has it. Without Web Locks (on insecure origins) it always succeeds. */
function lock(name: string): Promise<HeldId["unlock"] | undefined> {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  const withoutLock = () => Promise.resolve();
  if (locks === undefined) return Promise.resolve(withoutLock);
  const waiting = new AbortController();
  const timer = setTimeout(() => void answered(locks).then(() => waiting.abort()), LOCK_WAIT_MS);
  return new Promise((resolve) => {
    let release: () => void = () => undefined;
    const released = Promise.resolve(
      locks.request(name, { signal: waiting.signal }, () => {
        clearTimeout(timer);
        resolve(() => {
          release();
          return released;
        });
        return new Promise<void>((done) => (release = done));
      }),
    ).catch(() => {
      clearTimeout(timer);
      resolve(waiting.signal.aborted ? undefined : withoutLock); // sandboxed frames reject every request
    });
  });
}

/**
 * Resolves when the browser has processed the requests so far. Its timers may be late, on a busy machine or after sleep: then the
 * grant of a lock is on its way, although its time is over.
 */
async function answered(locks: LockManager): Promise<void> {
  try {
    await locks.query();
  } catch {
    /* the page is being unloaded */
  }
}

/** A UUID, version 4. `crypto.randomUUID()` exists only on secure origins. */
function newId(): string {
  const bytes = Uint8Array.from({ length: 16 }, () => Math.random() * 256);
  globalThis.crypto?.getRandomValues(bytes);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `tab-${hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")}`;
}

function stored(): string | undefined {
  try {
    const id = sessionStorage.getItem(KEY);
    return id !== null && /^[A-Za-z0-9._:-]{1,64}$/.test(id) ? id : undefined;
  } catch {
    return undefined; // storage is disabled: the id lasts until the page is closed
  }
}

function store(id: string): void {
  try {
    sessionStorage.setItem(KEY, id);
  } catch {
    /* as above */
  }
}

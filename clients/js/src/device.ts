/** A device id that is stable for a browser tab, and unique to it. */

const KEY = "dialtone-device";

/**
 * The id of this tab, stored in `sessionStorage` so that it survives a reload.
 *
 * A duplicated tab starts with a copy of that storage, and two tabs with one SIP identity would receive each other's calls.
 * Therefore each tab holds a Web Lock on its id. A tab that finds the lock of its stored id taken creates a new id.
 */
export async function tabDeviceId(): Promise<string> {
  const kept = stored();
  if (kept !== null && (await hold(kept))) return kept;
  const fresh = `tab-${crypto.randomUUID()}`;
  await hold(fresh);
  store(fresh);
  return fresh;
}

/** Acquire the lock of the id. Without Web Locks (on insecure origins) it always succeeds. */
function hold(id: string): Promise<boolean> {
  if (!("locks" in navigator)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const name = `${KEY}-${id}`;
    void navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock === null ? undefined : new Promise(() => undefined); // held until the tab closes
    });
  });
}

function stored(): string | null {
  try {
    const id = sessionStorage.getItem(KEY);
    return id !== null && /^[A-Za-z0-9._:-]{1,64}$/.test(id) ? id : null;
  } catch {
    return null; // storage is disabled: the id lasts until the page is closed
  }
}

function store(id: string): void {
  try {
    sessionStorage.setItem(KEY, id);
  } catch {
    /* as above */
  }
}

/** A device id that is stable for a browser tab, and never shared by two. */

const KEY = "dialtone-device";

/**
 * The tab's own id, kept in `sessionStorage` over reloads.
 *
 * A duplicated tab starts with a copy of that storage, and two tabs with one SIP identity would take each other's calls. So
 * an id is held by a Web Lock for as long as its tab lives; whoever finds it held takes a new one.
 */
export async function tabDeviceId(): Promise<string> {
  const kept = stored();
  if (kept !== null && (await hold(kept))) return kept;
  const fresh = `tab-${crypto.randomUUID()}`;
  await hold(fresh);
  store(fresh);
  return fresh;
}

/** Whether the id is now this tab's. Without Web Locks (insecure origins) nobody can tell, and the id is taken. */
function hold(id: string): Promise<boolean> {
  if (!("locks" in navigator)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const name = `${KEY}-${id}`;
    void navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock === null ? undefined : new Promise(() => undefined); // until the tab is gone
    });
  });
}

function stored(): string | null {
  try {
    const id = sessionStorage.getItem(KEY);
    return id !== null && /^[A-Za-z0-9._:-]{1,64}$/.test(id) ? id : null;
  } catch {
    return null; // storage is forbidden: the id lives as long as the page
  }
}

function store(id: string): void {
  try {
    sessionStorage.setItem(KEY, id);
  } catch {
    /* as above */
  }
}

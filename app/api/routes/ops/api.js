/** Requests to the admin API with the operator's token, which is in memory only. */

import { isDue, renew, SignInFailed } from "./sign-in.js";

const TIMEOUT_MS = 15_000;

let session = null;
let settings = null;
let renewing = null;

/** A failed request. `kind` is session (401), forbidden (403), unavailable (no answer or 5xx) or rejected. */
export class RequestFailed extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Use this session from now on; null forgets the token. `provider` is the sign-in of the session, if it has one. */
export function useSession(given, provider = null) {
  session = given;
  settings = provider;
}

export const hasSession = () => session !== null;

/** The provider of the session; null for a token that was entered. */
export const providerOfSession = () => settings;

/** Call the admin API. Returns the content with the `status` of the response. Throws RequestFailed. */
export async function request(path, method = "GET", body) {
  if (session === null) throw new RequestFailed("session", "You are signed out.");
  if (isDue(session)) await renewed();
  let response = await send(path, method, body);
  if (response.status === 401 && session?.refresh && (await renewed())) response = await send(path, method, body);
  const content = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (response.ok) return { ...content, httpStatus: response.status };
  throw failure(response.status, content);
}

async function send(path, method, body) {
  const headers = { Authorization: `Bearer ${session?.token}`, ...(body && { "Content-Type": "application/json" }) };
  const options = { method, headers, cache: "no-store", credentials: "same-origin", body: body && JSON.stringify(body) };
  try {
    return await fetch(`v1/admin${path}`, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    const message = navigator.onLine ? "Dialtone does not answer." : "This computer has no network connection.";
    throw new RequestFailed("unavailable", message);
  }
}

function failure(status, content) {
  const detail = [content.code ?? status, content.request_id && `request ${content.request_id}`].filter(Boolean).join(", ");
  const message = `${content.title ?? "The request failed."} (${detail})`;
  if (status === 401) return new RequestFailed("session", message);
  if (status === 403) return new RequestFailed("forbidden", message);
  return new RequestFailed(status >= 500 || status === 429 ? "unavailable" : "rejected", message);
}

/** Renew the token once for all requests that need it. Returns whether that succeeded. */
function renewed() {
  const former = session;
  renewing ??= renew(settings, former)
    .then((fresh) => {
      if (session === former) session = fresh;
      return true;
    })
    .catch((error) => {
      if (!(error instanceof SignInFailed)) throw error;
      if (session === former) session = { ...former, refresh: null };
      return false;
    })
    .finally(() => {
      renewing = null;
    });
  return renewing;
}

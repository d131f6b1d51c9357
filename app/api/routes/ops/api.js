/** Requests to the admin API with the operator's token, which is in memory only. */

import { hasEnded, isDue, isRecord, renew, SignInFailed } from "./sign-in.js";

const TIMEOUT_MS = 15_000;

let session = null;
let settings = null;
let renewing = null;
let clockOffset = 0;

/** The service's time in milliseconds, by its last response. The clock of this computer may be wrong. */
export const serverNow = () => Date.now() + clockOffset;

/**
 * A failed request. `kind` is session (401), forbidden (403), unavailable (no answer or 5xx) or rejected. A forbidden request
 * may have a `reason`: what the token or the policy lacks.
 */
export class RequestFailed extends Error {
  constructor(kind, message, reason = "") {
    super(message);
    this.kind = kind;
    this.reason = reason;
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
  if (session !== null && isDue(session)) {
    const error = await renewed();
    // The former token is used until it ends.
    if (error?.isTemporary && session !== null && hasEnded(session)) throw new RequestFailed("unavailable", error.message);
  }
  let response = await send(path, method, body);
  if (response.status === 401 && session?.refresh) {
    const error = await renewed();
    if (error?.isTemporary) throw new RequestFailed("unavailable", error.message);
    if (!error) response = await send(path, method, body);
  }
  const content = response.status === 204 ? {} : await response.json().catch(() => null);
  if (response.ok && isRecord(content)) return { ...content, httpStatus: response.status };
  throw failure(response, isRecord(content) ? content : {});
}

async function send(path, method, body) {
  if (session === null) throw new RequestFailed("session", "You are signed out.");
  const headers = { Authorization: `Bearer ${session.token}`, ...(body && { "Content-Type": "application/json" }) };
  const options = { method, headers, cache: "no-store", credentials: "same-origin", body: body && JSON.stringify(body) };
  try {
    const response = await fetch(`v1/admin${path}`, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
    clockOffset = (Date.parse(response.headers.get("Date")) || Date.now()) - Date.now();
    return response;
  } catch {
    const message = navigator.onLine ? "Dialtone does not answer." : "This computer has no network connection.";
    throw new RequestFailed("unavailable", message);
  }
}

/** The scope that a response requires (RFC 6750 section 3); undefined if it names none. */
const requiredScope = (response) => /\bscope="([^"]+)"/.exec(response.headers.get("WWW-Authenticate") ?? "")?.[1];

function failure(response, content) {
  const { status } = response;
  if (response.ok) return new RequestFailed("unavailable", `The response is not one of Dialtone. (status ${status})`);
  const detail = [content.code ?? status, content.request_id && `request ${content.request_id}`].filter(Boolean).join(", ");
  const message = `${content.title ?? "The request failed."} (${detail})`;
  if (status === 401) return new RequestFailed("session", message);
  if (status === 403) {
    const scope = requiredScope(response);
    const reason = scope
      ? `The token lacks the scope ${scope}. Grant the account this scope, and check that the sign-in requests it.`
      : "The policy must have a rule with admin = true for this user.";
    return new RequestFailed("forbidden", message, `${reason} (${detail})`);
  }
  return new RequestFailed(status >= 500 || status === 429 ? "unavailable" : "rejected", message);
}

/** Renew the token once for all requests that need it. Returns the error; null if the token is renewed. */
function renewed() {
  const former = session;
  renewing ??= renew(settings, former)
    .then((fresh) => {
      if (session === former) session = fresh;
      return null;
    })
    .catch((error) => {
      if (!(error instanceof SignInFailed)) throw error;
      if (session === former && !error.isTemporary) session = { ...former, refresh: null };
      return error;
    })
    .finally(() => {
      renewing = null;
    });
  return renewing;
}

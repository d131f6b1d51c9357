/**
 * Sign-in with the identity provider: OAuth 2.0 authorization code flow with PKCE (RFC 7636) and OpenID Connect.
 *
 * Tokens are in memory only. During the redirect, sessionStorage has the state, the nonce and the verifier.
 */

const PENDING = "dialtone-sign-in";
const RENEW_BEFORE_MS = 30_000;

/** A sign-in or a renewal that failed. The message says what to do. A temporary failure may be retried. */
export class SignInFailed extends Error {
  constructor(message, { isTemporary = false } = {}) {
    super(message);
    this.isTemporary = isTemporary;
  }
}

/** Whether the text is a signed JWT. Dialtone accepts no other tokens. */
export const isJwt = (text) => typeof text === "string" && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text);

export const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const randomText = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** The S256 challenge of a verifier (RFC 7636 section 4.2). */
export async function challengeOf(verifier) {
  return base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
}

const redirectUri = () => location.origin + location.pathname;

/**
 * Leave the page for the provider's sign-in page. The fragment of the URL, which contains the view, is kept.
 * `prompt` is what the provider shall ask for (OpenID Connect Core 3.1.2.1).
 */
export async function begin(settings, prompt = null) {
  if (!crypto.subtle) throw new SignInFailed("The sign-in requires https. Open this page at its https address.");
  const secrets = { state: randomText(), nonce: randomText(), verifier: randomText() };
  const pending = { ...secrets, issuer: settings.issuer, fragment: location.hash };
  try {
    sessionStorage.setItem(PENDING, JSON.stringify(pending));
  } catch {
    throw new SignInFailed("The browser blocks the storage of this page, which the sign-in requires. Allow it.");
  }
  const url = new URL(settings.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id: settings.client_id,
    redirect_uri: redirectUri(),
    scope: settings.scope,
    state: pending.state,
    nonce: pending.nonce,
    code_challenge: await challengeOf(pending.verifier),
    code_challenge_method: "S256",
    ...(settings.audience && { audience: settings.audience }),
    ...(prompt && { prompt }),
  };
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  location.assign(url);
}

/** Whether the provider has sent the browser back to this page. */
export function isResponse() {
  const response = new URLSearchParams(location.search);
  return response.has("code") || response.has("error");
}

/** Remove the provider's response from the URL, and restore the view. Returns the response and the pending sign-in. */
export function takeResponse() {
  const response = new URLSearchParams(location.search);
  let pending = null;
  try {
    const stored = sessionStorage.getItem(PENDING);
    sessionStorage.removeItem(PENDING);
    pending = JSON.parse(stored);
  } catch {
    // Without storage, or with other content in it, there is no pending sign-in.
  }
  history.replaceState(null, "", location.pathname + (pending?.fragment ?? ""));
  return { response, pending };
}

/** Exchange the code for tokens. Returns a session. Throws SignInFailed. */
export async function finish(settings, { response, pending }) {
  if (!pending) throw new SignInFailed("This tab has no pending sign-in. Sign in again.");
  if (response.get("state") !== pending.state) {
    throw new SignInFailed("The response belongs to another sign-in: its state is wrong. Sign in again.");
  }
  // The code is sent only to the provider that issued it: the response may name it (RFC 9207), and the configuration may
  // have changed since the sign-in began.
  if (pending.issuer !== settings.issuer || (response.has("iss") && response.get("iss") !== settings.issuer)) {
    throw new SignInFailed("The response comes from another issuer. Sign in again.");
  }
  if (response.has("error")) throw new SignInFailed(explained(response.get("error"), response.get("error_description")));
  const answer = await requestTokens(settings, {
    grant_type: "authorization_code",
    code: response.get("code"),
    redirect_uri: redirectUri(),
    code_verifier: pending.verifier,
  });
  checkIdToken(settings, answer.id_token, pending.nonce);
  return sessionOf(settings, answer, {});
}

/** Whether the session's token ends soon and can be renewed. */
export const isDue = (session) => Boolean(session.refresh) && Date.now() > session.renewAt;

/** Whether the session's token has ended. */
export const hasEnded = (session) => Date.now() > session.endsAt;

/** A session with a new token. Throws SignInFailed. */
export async function renew(settings, session) {
  const answer = await requestTokens(settings, { grant_type: "refresh_token", refresh_token: session.refresh });
  return sessionOf(settings, answer, session);
}

/** The page of the provider that ends its session; null if it has none. It contains no token. */
export function endSessionUrl(settings) {
  if (!settings?.end_session_endpoint) return null;
  const url = new URL(settings.end_session_endpoint);
  url.searchParams.set("client_id", settings.client_id);
  url.searchParams.set("post_logout_redirect_uri", redirectUri());
  return url.href;
}

async function requestTokens(settings, parameters) {
  const body = new URLSearchParams({ ...parameters, client_id: settings.client_id });
  let response;
  try {
    const options = { method: "POST", body, cache: "no-store", credentials: "omit", redirect: "error" };
    response = await fetch(settings.token_endpoint, { ...options, signal: AbortSignal.timeout(15_000) });
  } catch {
    throw new SignInFailed(
      `The identity provider's token endpoint does not answer. If it is available, its client must allow the origin ${location.origin} (CORS).`,
      { isTemporary: true },
    );
  }
  const answer = await response.json().catch(() => null);
  if (!isRecord(answer)) {
    const message = `The identity provider's token endpoint sent no tokens and no error. (status ${response.status})`;
    throw new SignInFailed(`${message} Try again later.`, { isTemporary: true });
  }
  if (!response.ok || answer.error) {
    const isTemporary = response.status >= 500 || response.status === 429;
    throw new SignInFailed(explained(answer.error ?? `status ${response.status}`, answer.error_description), { isTemporary });
  }
  return answer;
}

function sessionOf(settings, answer, former) {
  const token = answer[settings.token];
  if (!token) throw new SignInFailed(`The identity provider returned no ${settings.token}. Check its client.`);
  if (!isJwt(token)) {
    throw new SignInFailed(`The ${settings.token} of the identity provider is not a JWT. Configure Dialtone's audience at the identity provider.`);
  }
  const milliseconds = Number(answer.expires_in) > 0 ? Number(answer.expires_in) * 1000 : Infinity;
  const renewIn = Math.max(milliseconds - RENEW_BEFORE_MS, milliseconds / 2);
  const now = Date.now();
  return { token, refresh: answer.refresh_token ?? former.refresh, renewAt: now + renewIn, endsAt: now + milliseconds };
}

/**
 * Check the claims of the ID token (OpenID Connect Core 3.1.3.7). It comes from the token endpoint over TLS, which
 * replaces the check of its signature.
 */
function checkIdToken(settings, idToken, nonce) {
  let claims;
  try {
    const payload = idToken.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))));
  } catch {
    throw new SignInFailed("The identity provider returned no ID token. Check that its client allows the scope openid.");
  }
  if (claims.nonce !== nonce) throw new SignInFailed("The ID token belongs to another sign-in: its nonce is wrong. Sign in again.");
  if (claims.iss !== settings.issuer || ![claims.aud].flat().includes(settings.client_id)) {
    throw new SignInFailed("The ID token is for another client or from another issuer. Check the settings of the client.");
  }
}

const EXPLANATIONS = {
  access_denied: "The identity provider denied the sign-in, or you cancelled it. Sign in again with an operator's account.",
  login_required: "You are not signed in at the identity provider. Sign in again.",
  interaction_required: "The identity provider requires your confirmation. Sign in again.",
  consent_required: "The identity provider requires your consent. Sign in again.",
  invalid_grant: "The sign-in has expired, or its code was used before. Sign in again.",
  invalid_scope: "The identity provider does not allow these scopes. Allow them for the client, or change DIALTONE_OPS_SCOPES.",
  invalid_client: "The identity provider does not know the client, or requires a secret. Register a public client with PKCE.",
  unauthorized_client: "The client may not use the authorization code flow. Allow it at the identity provider.",
  temporarily_unavailable: "The identity provider is unavailable. Try again later.",
  server_error: "The identity provider failed. Try again later.",
};

function explained(code, description) {
  const detail = [code, description].filter(Boolean).join(": ").slice(0, 300);
  return `${EXPLANATIONS[code] ?? "The identity provider rejected the sign-in."} (${detail})`;
}

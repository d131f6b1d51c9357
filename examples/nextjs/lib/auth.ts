/** Signs users in with OpenID Connect. The tokens stay on the server; the browser has a cookie with a session id. */

import { cookies } from "next/headers";
import * as oidc from "openid-client";

const ISSUER = process.env.ISSUER ?? "http://127.0.0.1:8012"; // the identity provider of `make dev`
const CLIENT_ID = process.env.CLIENT_ID ?? "nextjs";
const CLIENT_SECRET = process.env.CLIENT_SECRET;
const SCOPE = process.env.SCOPE ?? "openid profile email offline_access";
/** The address of this application in the browser. Behind a proxy, the URL of a request is another one. */
const APP_URL = process.env.APP_URL ?? "http://localhost:3000";
const CALLBACK = new URL("/auth/callback", APP_URL);

const COOKIE = "nextjs-example-session";
const COOKIE_OPTIONS = { httpOnly: true, sameSite: "lax", secure: APP_URL.startsWith("https:"), path: "/" } as const;
const SIGN_IN_SECONDS = 600;
/** An access token that expires within this time is refreshed. */
const MIN_VALIDITY_MS = 10_000;

interface Session {
  user: { id: string; name: string };
  accessToken: string;
  expiresAt: number;
  refreshToken: string | undefined;
  idToken: string | undefined;
  refresh: Promise<void> | undefined;
}

type Tokens = oidc.TokenEndpointResponse & oidc.TokenEndpointResponseHelpers;

/** The session has ended: the user must sign in again. */
export class SessionEnded extends Error {}

// Next.js may load this module more than once. In production, keep the sessions in a database.
const shared = globalThis as { sessions?: Map<string, Session>; provider?: Promise<oidc.Configuration> };
const sessions = (shared.sessions ??= new Map());

/** The configuration that the provider publishes. A failed request is repeated. */
function provider(): Promise<oidc.Configuration> {
  const authentication = CLIENT_SECRET ? oidc.ClientSecretPost(CLIENT_SECRET) : oidc.None();
  const execute = ISSUER.startsWith("http:") ? [oidc.allowInsecureRequests] : []; // only on this machine
  shared.provider ??= oidc.discovery(new URL(ISSUER), CLIENT_ID, undefined, authentication, { execute });
  shared.provider.catch(() => (shared.provider = undefined));
  return shared.provider;
}

/** Begin a sign-in, and return the URL of the provider's page. Each sign-in has a cookie, because tabs may overlap. */
export async function beginSignIn(): Promise<URL> {
  const [state, nonce, verifier] = [oidc.randomState(), oidc.randomNonce(), oidc.randomPKCECodeVerifier()];
  const url = oidc.buildAuthorizationUrl(await provider(), {
    redirect_uri: CALLBACK.href,
    scope: SCOPE,
    state,
    nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  });
  (await cookies()).set(`sign-in-${state}`, `${nonce}.${verifier}`, { ...COOKIE_OPTIONS, maxAge: SIGN_IN_SECONDS });
  return url;
}

/** Redeem the code in the parameters with which the provider called the application, and begin a session. */
export async function finishSignIn(parameters: URLSearchParams): Promise<void> {
  const jar = await cookies();
  const state = parameters.get("state") ?? "";
  const begun = jar.get(`sign-in-${state}`)?.value;
  if (begun === undefined) throw new Error("no sign-in with this state has begun");
  jar.delete(`sign-in-${state}`);
  const [expectedNonce, pkceCodeVerifier] = begun.split(".");
  const checks = { expectedState: state, expectedNonce, pkceCodeVerifier, idTokenExpected: true };
  const tokens = await oidc.authorizationCodeGrant(await provider(), new URL(`${CALLBACK}?${parameters}`), checks);
  const { sub, name } = tokens.claims()!;
  const user = { id: sub, name: typeof name === "string" ? name : sub };
  const id = oidc.randomState();
  sessions.delete(await sessionId());
  sessions.set(id, { user, ...valuesOf(tokens), refresh: undefined });
  jar.set(COOKIE, id, COOKIE_OPTIONS);
}

/** The signed-in user; undefined if no user is signed in. */
export async function getUser(): Promise<Session["user"] | undefined> {
  return sessions.get(await sessionId())?.user;
}

/**
 * An access token of the user that is valid for a while. Throws SessionEnded if another user or no user is signed in.
 * Throws another error if the provider is unavailable.
 */
export async function getAccessToken(userId: string | null): Promise<string> {
  const id = await sessionId();
  const session = sessions.get(id);
  if (session === undefined || session.user.id !== userId) throw new SessionEnded();
  if (session.expiresAt - Date.now() < MIN_VALIDITY_MS) {
    // A refresh token is valid once, so the tabs of a browser share the refresh.
    session.refresh ??= refresh(id, session).finally(() => (session.refresh = undefined));
    await session.refresh;
  }
  return session.accessToken;
}

/** End the session, and return the URL at which the provider ends its own session. */
export async function signOut(): Promise<URL> {
  const id = await sessionId();
  const idToken = sessions.get(id)?.idToken;
  sessions.delete(id);
  (await cookies()).delete(COOKIE);
  const parameters = { post_logout_redirect_uri: homeUrl().href, ...(idToken && { id_token_hint: idToken }) };
  try {
    return oidc.buildEndSessionUrl(await provider(), parameters);
  } catch {
    return homeUrl(); // the provider is unavailable, or has no page for the sign-out
  }
}

/** The URL of the page. `problem`: what it reports. */
export function homeUrl(problem?: string): URL {
  return new URL(problem === undefined ? "/" : `/?problem=${problem}`, APP_URL);
}

async function sessionId(): Promise<string> {
  return (await cookies()).get(COOKIE)?.value ?? "";
}

async function refresh(id: string, session: Session): Promise<void> {
  try {
    if (session.refreshToken === undefined) throw new SessionEnded();
    Object.assign(session, valuesOf(await oidc.refreshTokenGrant(await provider(), session.refreshToken), session));
  } catch (error) {
    const hasEnded = error instanceof oidc.ResponseBodyError && error.error === "invalid_grant";
    if (!hasEnded && !(error instanceof SessionEnded)) throw error;
    sessions.delete(id);
    throw new SessionEnded();
  }
}

/** The parts of a token response that are kept. The response to a refresh may lack some. */
function valuesOf(tokens: Tokens, previous?: Session) {
  return {
    accessToken: tokens.access_token,
    expiresAt: Date.now() + (tokens.expiresIn() ?? 60) * 1000,
    refreshToken: tokens.refresh_token ?? previous?.refreshToken,
    idToken: tokens.id_token ?? previous?.idToken,
  };
}

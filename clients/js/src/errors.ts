/** The error class of this package, with a code for programs and a message for users. */

import type { components } from "./openapi.js";

/** A problem document of the service (RFC 9457). */
export type Problem = components["schemas"]["ProblemDocument"];

/** The problem codes of the service, and the codes of this package. A newer service may return codes that are not listed. */
export type Code =
  | Problem["code"]
  /** No response: the page is offline, the request was blocked, or the service is unreachable. */
  | "network"
  /** `accessToken()` returned no token or threw an error, or the service rejected the token: the user must sign in. */
  | "not_signed_in"
  /** The response is not from the service, but for example from a proxy. */
  | "unexpected_answer"
  /** Another `Phone` in this page uses the device. Close it first, or use it. */
  | "already_open"
  /** An option is invalid; see `cause`. */
  | "invalid_options"
  /** `close()` or `revoke()` ended the request. */
  | "closed"
  /** The Telnyx SDK threw an error; see `cause`. */
  | "sdk_failed"
  /** Telnyx's signalling does not respond; the phone reconnects. */
  | "line_down"
  /** Telnyx rejected the login, and new ones too. */
  | "telnyx_rejected";

const MESSAGES: Partial<Record<Code, string>> = {
  network: "There is no network connection. Trying again when it is restored.",
  not_signed_in: "Please sign in first.",
  insufficient_scope: "Your account is not allowed to make calls.",
  grant_not_allowed: "Your account is not allowed to log in this way.",
  access_denied: "Your account is not allowed to do this.",
  device_limit_reached: "You are using the phone on too many devices. Log out on another device first.",
  line_down: "The phone network is unavailable. Trying again.",
  already_open: "The phone is already open in this page.",
  closed: "The phone was closed.",
  telnyx_rejected: "The phone network rejected the login. Please try again later.",
  telnyx_rate_limited: "The phone network is busy. Trying again in a moment.",
  telnyx_unavailable: "The phone network is unavailable. Trying again in a moment.",
  issue_in_progress: "The phone is being set up. Trying again in a moment.",
  overloaded: "The phone service is busy. Trying again in a moment.",
  ledger_unavailable: "The phone service is unavailable. Trying again in a moment.",
  identity_unavailable: "The sign-in service is unavailable. Trying again in a moment.",
};

export class DialtoneError extends Error {
  override readonly name = "DialtoneError";

  constructor(
    readonly code: Code,
    /** Whether the same request may succeed later. */
    readonly retryable: boolean,
    readonly details: {
      /** The HTTP status; undefined without a response. */
      status?: number;
      /** The request id. Quote it in a support request. */
      requestId?: string;
      /** `Retry-After` in milliseconds. */
      retryAfterMs?: number;
    } = {},
    /** `cause`: the value that was thrown or emitted, or the problem document of the service. */
    options: { cause?: unknown } = {},
  ) {
    super(messageOf(code, options.cause), options);
  }
}

function messageOf(code: Code, cause: unknown): string {
  const isEnded = code === "not_signed_in" && (cause as Partial<Problem> | undefined)?.code === "invalid_token";
  if (isEnded) return "Your session has ended. Please sign in again.";
  return MESSAGES[code] ?? "The phone could not be set up. Please try again later.";
}

/** The error of a response that is not a success. Reads the body. */
export async function errorOf(answer: Response): Promise<DialtoneError> {
  const body: unknown = await answer.json().catch(() => undefined);
  const problem = typeof body === "object" && body !== null ? (body as Partial<Problem>) : undefined;
  const retryAfterMs = millisecondsOf(answer.headers.get("Retry-After"));
  const details = {
    status: answer.status,
    ...(retryAfterMs > 0 ? { retryAfterMs } : {}),
    ...(typeof problem?.request_id === "string" ? { requestId: problem.request_id } : {}),
  };
  if (answer.status === 401) return new DialtoneError("not_signed_in", false, details, { cause: problem });
  if (typeof problem?.code === "string") {
    const isRetryable = problem.retryable === true || answer.status === 429;
    return new DialtoneError(problem.code, isRetryable, details, { cause: problem });
  }
  return new DialtoneError("unexpected_answer", answer.status === 429 || answer.status >= 500, details, { cause: body });
}

/** The value of `Retry-After`: seconds or a date (RFC 9110 section 10.2.3). Zero if it is absent or unreadable. */
function millisecondsOf(retryAfter: string | null): number {
  if (retryAfter === null) return 0;
  const seconds = Number(retryAfter);
  const milliseconds = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(retryAfter) - Date.now();
  return Number.isFinite(milliseconds) ? Math.max(milliseconds, 0) : 0;
}

const NETWORK_FAILURE = /failed to fetch|fetch failed|load failed|network/i;
const TIMEOUT = /time[ _-]?out/i;

/**
 * The error of a sign-in library that threw. The libraries mark a failed request in different properties: Auth0 in `error`,
 * MSAL in `errorCode`, Firebase in `code`, and browsers in the message of a `TypeError`.
 */
export function errorOfSignIn(thrown: unknown): DialtoneError {
  const { name, message, code, error, errorCode } = Object(thrown) as Record<string, unknown>;
  const marks = [name, code, error, errorCode].filter((mark) => typeof mark === "string").join(" ");
  const isOffline = globalThis.navigator?.onLine === false;
  const isNetwork = isOffline || TIMEOUT.test(marks) || NETWORK_FAILURE.test(`${marks} ${String(message)}`);
  return new DialtoneError(isNetwork ? "network" : "not_signed_in", isNetwork, {}, { cause: thrown });
}

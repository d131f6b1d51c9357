/** The error class of this package, with a code for programs and a message for users. */

import type { components } from "./openapi.js";

/** A problem document of the service (RFC 9457). */
export type Problem = components["schemas"]["ProblemDocument"];

/** The problem codes of the service, and the codes of this package. */
export type Code =
  | Problem["code"]
  /** No response: the page is offline, the request was blocked, or the service is unreachable. */
  | "network"
  /** `accessToken()` returned no token: the user must sign in. */
  | "not_signed_in"
  /** The response is not from the service, but for example from a proxy. */
  | "unexpected_answer"
  /** Telnyx's signalling does not respond; the phone reconnects. */
  | "line_down"
  /** Telnyx rejected the login, and new ones too. */
  | "login_refused";

const MESSAGES: Partial<Record<Code, string>> = {
  network: "There is no network connection. Trying again when it is restored.",
  not_signed_in: "Please sign in first.",
  missing_token: "Please sign in first.",
  invalid_token: "Your session has ended. Please sign in again.",
  insufficient_scope: "Your account is not allowed to make calls.",
  grant_not_allowed: "Your account is not allowed to log in this way.",
  access_denied: "Your account is not allowed to do this.",
  device_limit_reached: "You are using the phone on too many devices. Log out on another device first.",
  line_down: "The phone network is unavailable. Trying again.",
  login_refused: "The phone network rejected the login. Please try again later.",
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
  ) {
    super(MESSAGES[code] ?? "The phone could not be set up. Please try again later.");
  }
}

/** The error of a response that is not a success. Reads the body. */
export async function errorOf(answer: Response): Promise<DialtoneError> {
  const problem = (await answer.json().catch(() => undefined)) as Partial<Problem> | undefined;
  const wait = Number(answer.headers.get("Retry-After"));
  const details = {
    status: answer.status,
    ...(Number.isFinite(wait) && wait > 0 ? { retryAfterMs: wait * 1000 } : {}),
    ...(problem?.request_id ? { requestId: problem.request_id } : {}),
  };
  if (typeof problem?.code === "string") {
    return new DialtoneError(problem.code, problem.retryable === true || answer.status === 429, details);
  }
  return new DialtoneError("unexpected_answer", answer.status === 429 || answer.status >= 500, details);
}

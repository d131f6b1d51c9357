/** Everything that can go wrong, as one class with a code to branch on and a sentence to show. */

import type { components } from "./openapi.js";

/** A problem as the service answers it (RFC 9457). */
export type Problem = components["schemas"]["ProblemDocument"];

/** The service's own codes, and what only a page can meet. */
export type Code =
  | Problem["code"]
  /** No answer came: offline, blocked, or the service is unreachable. */
  | "network"
  /** `accessToken()` gave nothing: the user has to sign in. */
  | "not_signed_in"
  /** The answer was not one of the service's: something in between spoke. */
  | "unexpected_answer"
  /** Telnyx's signalling does not answer; the line is being made anew. */
  | "line_down"
  /** Telnyx did not take the login, even a fresh one. */
  | "login_refused";

const SENTENCES: Partial<Record<Code, string>> = {
  network: "There is no connection. Trying again when there is.",
  not_signed_in: "Please sign in first.",
  missing_token: "Please sign in first.",
  invalid_token: "Your session has ended. Please sign in again.",
  insufficient_scope: "Your account is not allowed to make calls.",
  grant_not_allowed: "Your account is not allowed to log in this way.",
  access_denied: "Your account is not allowed to do this.",
  device_limit_reached: "You are using the phone in too many places. Log out somewhere else first.",
  line_down: "The phone network cannot be reached. Trying again.",
  login_refused: "The phone network did not accept the login. Please try again later.",
  telnyx_rate_limited: "The phone network is busy. Trying again in a moment.",
  telnyx_unavailable: "The phone network does not answer. Trying again in a moment.",
  issue_in_progress: "The phone is being set up. Trying again in a moment.",
  overloaded: "The phone service is busy. Trying again in a moment.",
  ledger_unavailable: "The phone service is not available. Trying again in a moment.",
  identity_unavailable: "The sign-in service does not answer. Trying again in a moment.",
};

export class DialtoneError extends Error {
  override readonly name = "DialtoneError";

  constructor(
    readonly code: Code,
    /** Whether the same request may succeed later. */
    readonly retryable: boolean,
    readonly details: {
      /** The HTTP status; undefined where there was no answer. */
      status?: number;
      /** Quote it when asking the operator for help. */
      requestId?: string;
      /** Milliseconds that the service asked to wait. */
      retryAfterMs?: number;
    } = {},
  ) {
    super(SENTENCES[code] ?? "The phone could not be set up. Please try again later.");
  }
}

/** The error behind an answer that is not a success. Reads the body. */
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

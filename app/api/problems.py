"""Every error as an RFC 9457 problem document. The only module that maps errors to status codes.

Titles and messages are fixed texts of this code base. No upstream text, input value or secret appears in a response.
"""

import math
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pydantic_core import to_json
from starlette.types import Send

from app.vending import errors
from app.vending.models import RateLimitStatus
from app.vending.push.material_errors import FAULT_MESSAGES

MEDIA_TYPE = "application/problem+json"
MAX_RETRY_AFTER_SECONDS = 60
REALM = 'Bearer realm="dialtone"'
_HERE = "<id>"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem. `code` is stable, because clients branch on it."""

    status: int
    code: str
    title: str
    retryable: bool = False


MALFORMED = ProblemKind(400, "malformed_request", "The request is malformed.")
PREFLIGHT_REJECTED = ProblemKind(
    400, "preflight_rejected", "Pages of this origin may not send this request. The CORS preflight was rejected."
)
BAD_AUTHORIZATION = ProblemKind(
    400, "malformed_authorization", "The Authorization header must be sent once, as `Bearer <token>`."
)
SEVERAL_TOKENS = ProblemKind(400, "several_tokens", "The request has tokens in several headers.")
ORIGIN_NOT_ALLOWED = ProblemKind(
    403, "origin_not_allowed", "Pages of this origin may not use the token that a proxy adds to the request."
)
MISSING_TOKEN = ProblemKind(401, "missing_token", "The request has no bearer token.")
NOT_FOUND = ProblemKind(404, "not_found", "The resource does not exist.")
METHOD_NOT_ALLOWED = ProblemKind(405, "method_not_allowed", "The resource does not support this method.")
TOO_SLOW = ProblemKind(408, "request_timeout", "The request did not arrive in time.", retryable=True)
TOO_LARGE = ProblemKind(413, "body_too_large", "The request body is too large.")
URI_TOO_LONG = ProblemKind(414, "uri_too_long", "The request URI is too long.")
UNSUPPORTED_TYPE = ProblemKind(
    415, "unsupported_media_type", "The Content-Type or Content-Encoding of the request body is not supported."
)
INVALID = ProblemKind(422, "invalid_request", "Request validation failed.")
INVALID_CURSOR = ProblemKind(422, "invalid_cursor", "The cursor is invalid. Use `next_cursor` of the previous page.")
HEADERS_TOO_LARGE = ProblemKind(431, "headers_too_large", "The request headers are too large.")
INTERNAL = ProblemKind(500, "internal_error", "The service had an internal error.", retryable=True)
IDENTITY_UNAVAILABLE = ProblemKind(503, "identity_unavailable", str(errors.IdentityUnavailable.__doc__), retryable=True)
TELNYX_UNAVAILABLE = ProblemKind(
    503, "telnyx_unavailable", "Telnyx is unavailable or returned an invalid response.", retryable=True
)

KINDS: dict[type[errors.DialtoneError], ProblemKind] = {
    errors.TokenRejected: ProblemKind(401, "invalid_token", str(errors.TokenRejected.__doc__)),
    errors.LogoutTokenRejected: ProblemKind(400, "invalid_logout_token", str(errors.LogoutTokenRejected.__doc__)),
    errors.IssuerNotFound: ProblemKind(404, "issuer_not_found", str(errors.IssuerNotFound.__doc__)),
    errors.ConfirmationRequired: ProblemKind(422, "not_confirmed", str(errors.ConfirmationRequired.__doc__)),
    errors.NotBeforeInFuture: ProblemKind(422, "not_before_in_future", str(errors.NotBeforeInFuture.__doc__)),
    errors.IdentityUnavailable: IDENTITY_UNAVAILABLE,
    errors.SigningKeyPending: IDENTITY_UNAVAILABLE,
    errors.AccessDenied: ProblemKind(403, "access_denied", str(errors.AccessDenied.__doc__)),
    errors.InsufficientScope: ProblemKind(403, "insufficient_scope", str(errors.InsufficientScope.__doc__)),
    errors.GrantNotAllowed: ProblemKind(403, "grant_not_allowed", str(errors.GrantNotAllowed.__doc__)),
    errors.DeviceLimitReached: ProblemKind(403, "device_limit_reached", str(errors.DeviceLimitReached.__doc__)),
    errors.LeaseNotFound: ProblemKind(404, "credential_not_found", str(errors.LeaseNotFound.__doc__)),
    errors.LeaseEnded: ProblemKind(410, "credential_ended", str(errors.LeaseEnded.__doc__)),
    errors.SweepNotFound: ProblemKind(404, "sweep_not_found", str(errors.SweepNotFound.__doc__)),
    errors.GrantNotFound: ProblemKind(404, "grant_not_found", str(errors.GrantNotFound.__doc__)),
    errors.PushNotAllowed: ProblemKind(403, "push_not_allowed", str(errors.PushNotAllowed.__doc__)),
    errors.PushLimitReached: ProblemKind(403, "push_limit_reached", str(errors.PushLimitReached.__doc__)),
    errors.PushCredentialNotFound: ProblemKind(
        404, "push_credential_not_found", str(errors.PushCredentialNotFound.__doc__)
    ),
    errors.ConnectionNotFound: ProblemKind(404, "connection_not_found", str(errors.ConnectionNotFound.__doc__)),
    errors.LedgerMismatch: ProblemKind(409, "ledger_mismatch", str(errors.LedgerMismatch.__doc__)),
    errors.PushAliasTaken: ProblemKind(409, "push_alias_taken", str(errors.PushAliasTaken.__doc__)),
    errors.PushTypeMismatch: ProblemKind(422, "push_type_mismatch", str(errors.PushTypeMismatch.__doc__)),
    errors.PushMaterialRejected: ProblemKind(422, "push_material_refused", str(errors.PushMaterialRejected.__doc__)),
    errors.PushConflict: ProblemKind(503, "issue_in_progress", str(errors.IssueInProgress.__doc__), retryable=True),
    errors.LeaseConflict: ProblemKind(503, "issue_in_progress", str(errors.IssueInProgress.__doc__), retryable=True),
    errors.LeaseExists: ProblemKind(503, "issue_in_progress", str(errors.IssueInProgress.__doc__), retryable=True),
    errors.OutboundRequirementNotMet: ProblemKind(
        503, "outbound_requirement_not_met", str(errors.OutboundRequirementNotMet.__doc__), retryable=True
    ),
    errors.OutboundLimitsUnknown: ProblemKind(
        503, "outbound_limits_unknown", str(errors.OutboundLimitsUnknown.__doc__), retryable=True
    ),
    errors.IssueInProgress: ProblemKind(503, "issue_in_progress", str(errors.IssueInProgress.__doc__), retryable=True),
    errors.Overloaded: ProblemKind(503, "overloaded", str(errors.Overloaded.__doc__), retryable=True),
    errors.RateLimited: ProblemKind(429, "rate_limited", str(errors.RateLimited.__doc__), retryable=True),
    errors.AuditUnavailable: ProblemKind(
        503, "audit_unavailable", str(errors.AuditUnavailable.__doc__), retryable=True
    ),
    errors.LedgerUnavailable: ProblemKind(
        503, "ledger_unavailable", str(errors.LedgerUnavailable.__doc__), retryable=True
    ),
    errors.TelnyxKeyRejected: ProblemKind(502, "telnyx_key_rejected", str(errors.TelnyxKeyRejected.__doc__)),
    errors.TelnyxForbidden: ProblemKind(502, "telnyx_forbidden", str(errors.TelnyxForbidden.__doc__)),
    errors.TelnyxNotFound: ProblemKind(502, "telnyx_rejected", str(errors.TelnyxRejected.__doc__)),
    errors.TelnyxRejected: ProblemKind(502, "telnyx_rejected", str(errors.TelnyxRejected.__doc__)),
    errors.CredentialExpired: ProblemKind(
        503, "issue_in_progress", str(errors.IssueInProgress.__doc__), retryable=True
    ),
    errors.TelnyxRateLimited: ProblemKind(
        503, "telnyx_rate_limited", str(errors.TelnyxRateLimited.__doc__), retryable=True
    ),
    errors.TelnyxServerError: TELNYX_UNAVAILABLE,
    errors.TelnyxUnreachable: TELNYX_UNAVAILABLE,
    errors.TelnyxResponseInvalid: TELNYX_UNAVAILABLE,
}
"""The problem of each error. If Telnyx rejects Dialtone's API key, the caller gets 502, never 401."""


FAULT_KINDS = {code: ProblemKind(422, code, sentence) for code, sentence in FAULT_MESSAGES.items()}
"""A rejection of push material has the code of its first fault. Its `errors` lists all faults."""


def all_kinds() -> dict[str, ProblemKind]:
    """Every problem that a response can contain, by code."""
    own = [value for value in globals().values() if isinstance(value, ProblemKind)]
    return {kind.code: kind for kind in [*KINDS.values(), *own, *FAULT_KINDS.values()]}


@dataclass(frozen=True, slots=True)
class Problem:
    """One occurrence of a problem, with the headers and details of this request."""

    kind: ProblemKind
    request_id: str
    headers: tuple[tuple[str, str], ...] = ()
    errors: tuple[dict[str, Any], ...] = ()
    """The faulty fields, without their values."""

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"urn:dialtone:problem:{self.kind.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.kind.code,
            "request_id": self.request_id,
            "retryable": self.kind.retryable,
        }
        return body | ({"errors": list(self.errors)} if self.errors else {})

    def body(self) -> bytes:
        if self.errors:
            return to_json(self.as_json())
        before, behind = _written(self.kind)
        return before + self.request_id.encode("ascii") + behind

    async def send(self, send: Send) -> None:
        """Send the problem as ASGI messages, from middleware."""
        body = self.body()
        headers = [*_raw((("Content-Type", MEDIA_TYPE), *self.headers)), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.kind.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@cache
def _written(kind: ProblemKind) -> tuple[bytes, bytes]:
    """The problem's JSON before and after the request id, the only part that varies. The id needs no escaping."""
    before, behind = to_json(Problem(kind, _HERE).as_json()).split(_HERE.encode())
    return before, behind


@lru_cache(maxsize=256)
def _raw(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def problem_of(error: errors.DialtoneError, request_id: str) -> Problem:
    """The problem document of an error, with its headers."""
    kind = KINDS.get(type(error)) or next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
    headers: list[tuple[str, str]] = []
    faults: tuple[dict[str, Any], ...] = ()
    match error:
        case errors.PushMaterialRejected():
            kind = FAULT_KINDS[error.faults[0].code]
            faults = tuple(
                {"loc": ["body", fault.field], "type": fault.code, "message": fault.message} for fault in error.faults
            )
        case errors.PushAliasTaken():
            headers.append(("Location", f"/v1/push-credentials/{error.registration_id}"))
        case errors.TokenRejected():
            headers.append(("WWW-Authenticate", f'{REALM}, error="invalid_token"'))
        case errors.InsufficientScope():
            scope = " ".join(sorted(error.needed))
            headers.append(("WWW-Authenticate", f'{REALM}, error="insufficient_scope", scope="{scope}"'))
        case errors.AccessDenied():
            headers.append(("WWW-Authenticate", f'{REALM}, error="insufficient_scope"'))
    if kind.status in (429, 503):
        headers.append(("Retry-After", str(_retry_after(error))))
    return Problem(kind, request_id, tuple(headers), faults)


def rate_limit_headers(rate_limit: RateLimitStatus) -> list[tuple[bytes, bytes]]:
    """The caller's rate limit (draft-ietf-httpapi-ratelimit-headers-06). `reset` is in seconds."""
    return [
        (b"ratelimit-limit", b"%d" % rate_limit.limit),
        (b"ratelimit-remaining", b"%d" % rate_limit.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(rate_limit.reset_seconds)),
    ]


def rate_limit_lines(rate_limit: RateLimitStatus) -> bytes:
    """The same headers as raw lines, for the fast path."""
    return b"ratelimit-limit: %d\r\nratelimit-remaining: %d\r\nratelimit-reset: %d\r\n" % (
        rate_limit.limit,
        rate_limit.remaining,
        math.ceil(rate_limit.reset_seconds),
    )


def _retry_after(error: errors.DialtoneError) -> int:
    """Whole seconds, at most MAX_RETRY_AFTER_SECONDS, with up to 50 % jitter so that callers do not retry together."""
    wanted = error.retry_after_seconds or 1.0
    spread = 1.0 if error.is_jittered else 1 + random.random() / 2  # noqa: S311
    return math.ceil(min(wanted * spread + random.random(), MAX_RETRY_AFTER_SECONDS))  # noqa: S311

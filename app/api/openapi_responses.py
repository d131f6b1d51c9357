"""The error responses of the OpenAPI document: one entry in `components/responses` for each status and set of codes."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from app.api.problems import MEDIA_TYPE, Problem, all_kinds
from app.vending.push.material_errors import FAULT_MESSAGES

PROBLEM_CODES = "x-problem-codes"
"""The extension that lists an error response's codes. Tools read it; `docs/errors.md` is generated from it."""

GUARDED = (
    "malformed_request",
    "malformed_authorization",
    "several_tokens",
    "missing_token",
    "invalid_token",
    "access_denied",
    "insufficient_scope",
    "origin_not_allowed",
    "rate_limited",
    "internal_error",
    "identity_unavailable",
    "audit_unavailable",
    "ledger_unavailable",
    "issue_in_progress",
    "overloaded",
)
"""Codes of every operation that requires an access token."""

UNGUARDED = (
    "malformed_request",
    "rate_limited",
    "internal_error",
    "identity_unavailable",
    "audit_unavailable",
    "ledger_unavailable",
    "issue_in_progress",
    "overloaded",
)
"""Codes of the operation under /v1 that takes no bearer token."""

HEALTH = ("malformed_request", "internal_error")
"""Codes of the health checks, which bypass authentication and every queue."""

BODY = ("request_timeout", "body_too_large", "unsupported_media_type")
"""Codes of every operation that takes a body."""

TELNYX = ("telnyx_rejected", "telnyx_forbidden", "telnyx_key_rejected", "telnyx_rate_limited", "telnyx_unavailable")
"""Codes of the operations that call Telnyx before they respond."""

OUTBOUND = ("outbound_requirement_not_met", "outbound_limits_unknown")
"""Codes of the operations that return a login or extend one."""

EXAMPLE_REQUEST_ID = "7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c"

_MATERIAL = ("invalid_request", *FAULT_MESSAGES)
_FORBIDDEN = ("access_denied", "insufficient_scope", "origin_not_allowed")
_UNAVAILABLE = ("identity_unavailable", "audit_unavailable", "ledger_unavailable", "issue_in_progress", "overloaded")

_NAMES: dict[frozenset[str], str] = {
    frozenset(codes): name
    for name, codes in (
        ("BadRequest", ("malformed_request", "malformed_authorization", "several_tokens")),
        ("BadLogoutRequest", ("malformed_request", "invalid_logout_token")),
        ("Unauthorized", ("missing_token", "invalid_token")),
        ("Forbidden", _FORBIDDEN),
        ("LoginForbidden", (*_FORBIDDEN, "grant_not_allowed", "device_limit_reached")),
        ("PushForbidden", (*_FORBIDDEN, "push_not_allowed")),
        ("PushRegistrationForbidden", (*_FORBIDDEN, "push_not_allowed", "push_limit_reached")),
        ("ConnectionOrPushCredentialNotFound", ("connection_not_found", "push_credential_not_found")),
        ("InvalidRequestOrCursor", ("invalid_request", "invalid_cursor")),
        ("InvalidNotBefore", ("invalid_request", "not_before_in_future")),
        ("InvalidRevocation", ("invalid_request", "not_confirmed")),
        ("InvalidAttachment", ("invalid_request", "push_type_mismatch")),
        ("InvalidPushMaterial", _MATERIAL),
        ("InvalidPushReplacement", (*_MATERIAL, "push_type_mismatch")),
        ("BadGateway", ("telnyx_rejected", "telnyx_forbidden", "telnyx_key_rejected")),
        ("ServiceUnavailable", _UNAVAILABLE),
        ("ServiceOrTelnyxUnavailable", (*_UNAVAILABLE, "telnyx_rate_limited", "telnyx_unavailable")),
        ("LoginUnavailable", (*_UNAVAILABLE, "telnyx_rate_limited", "telnyx_unavailable", *OUTBOUND)),
    )
}
"""Names of the responses with several codes. A response with one code is named after that code."""

_EXAMPLE_ERRORS: dict[str, tuple[dict[str, Any], ...]] = {
    "invalid_request": ({"loc": ["body", "device_id"], "type": "missing", "message": "device_id is required."},),
}


def problems_of(*codes: str, common: Sequence[str] = GUARDED) -> dict[int | str, dict[str, Any]]:
    """The error half of a route's `responses`: its own codes and the `common` ones, by status.

    The document replaces each entry with a reference to a shared response (`resolve`).
    """
    kinds = all_kinds()
    found: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys((*common, *codes)):
        status = kinds[code].status
        entry = found.setdefault(status, {"description": HTTPStatus(status).phrase, PROBLEM_CODES: []})
        entry[PROBLEM_CODES].append(code)
    return found


def resolve(operation: dict[str, Any], components: dict[str, Any]) -> None:
    """Replace the error entries of an operation with references, and add the responses to `components`."""
    responses = operation["responses"]
    for status, response in responses.items():
        if PROBLEM_CODES in response:
            name = _add_response(response[PROBLEM_CODES], components)
            responses[status] = {"$ref": f"#/components/responses/{name}"}


def _add_response(codes: Sequence[str], components: dict[str, Any]) -> str:
    name = _response_name(codes)
    if name in components["responses"]:
        return name
    kinds = [all_kinds()[code] for code in codes]
    examples = {}
    for kind in kinds:
        value = Problem(kind, EXAMPLE_REQUEST_ID, errors=_EXAMPLE_ERRORS.get(kind.code, ())).as_json()
        components["examples"][_pascal(kind.code)] = {"summary": kind.title, "value": value}
        examples[kind.code] = {"$ref": f"#/components/examples/{_pascal(kind.code)}"}
    components["responses"][name] = {
        "description": kinds[0].title if len(kinds) == 1 else _listing(codes),
        PROBLEM_CODES: list(codes),
        "headers": _headers(kinds[0].status, codes),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": examples}},
    }
    return name


def _response_name(codes: Sequence[str]) -> str:
    if len(codes) == 1:
        return _pascal(codes[0])
    try:
        return _NAMES[frozenset(codes)]
    except KeyError:
        raise LookupError(f"give the response with the codes {sorted(codes)} a name in {__name__}") from None


def _listing(codes: Sequence[str]) -> str:
    return f"One of the problems {', '.join(f'`{code}`' for code in codes)}."


def _headers(status: int, codes: Sequence[str]) -> dict[str, Any]:
    names = {"X-Request-ID": "RequestId"}
    if status in (429, 503):
        names["Retry-After"] = "RetryAfter"
    if status in (401, 403):
        names["WWW-Authenticate"] = "WwwAuthenticate"
    if "push_alias_taken" in codes:
        names["Location"] = "Location"
    return {header: {"$ref": f"#/components/headers/{name}"} for header, name in names.items()}


def _pascal(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))

"""The catalogue of problem codes in Markdown, generated from the code: the content of `docs/errors.md`."""

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from itertools import groupby
from typing import Any

from app.api.openapi_responses import PROBLEM_CODES
from app.api.problems import FAULT_KINDS, ProblemKind, all_kinds

HEAD = """\
# Problem codes

Generated from the code by `make errors`; do not edit. Every error response is an `application/problem+json` document
(RFC 9457) with these fields:

- `code`: the kind of problem. It is stable; branch on it.
- `title`: the same in words, in English.
- `status`: the HTTP status.
- `type`: `urn:dialtone:problem:` and the code.
- `request_id`: the ID of the request. Send it to the operator when you ask for help; the log has it too.
- `retryable`: `true` if the same request may succeed later.
- `errors`: only with some codes. It lists each faulty field (`loc`) and what is wrong with it.

Responses with status 429 or 503 have a `Retry-After` header. Wait that many seconds before you retry. The
[runbook](runbook.md) says what an operator does about problems that the caller cannot fix.
"""

PUSH_MATERIAL = """
### Push material

`POST /v1/push-credentials` and `PUT /v1/push-credentials/{id}` return one of these codes if Telnyx could not use the
certificate, key or service account. The code is that of the first fault; `errors` has every fault. None is retryable.
`dialtone push lint` and `POST /v1/push-credentials/lint` report the same faults without storing anything.

| code | meaning and fix |
|---|---|
"""

WHAT_TO_DO = {
    "invalid_logout_token": "For the identity provider: send each logout token once, signed with a published key and "
    "addressed to an audience that Dialtone accepts.",
    "malformed_authorization": "Send exactly one `Authorization: Bearer <token>` header.",
    "several_tokens": "Send no `Authorization: Bearer` header if a proxy adds a token to the request.",
    "origin_not_allowed": "For operators: add the page's origin to `DIALTONE_CORS_ORIGINS`. A client that is not a "
    "browser can send a listed origin in the `Origin` header.",
    "preflight_rejected": "For operators: add the page's origin to `DIALTONE_CORS_ORIGINS`, and the request's headers "
    "to `DIALTONE_CORS_HEADERS`. Pages may use the methods GET, POST, PUT, PATCH and DELETE.",
    "malformed_request": "Fix the HTTP request. Common causes are two `Host` or two `Content-Length` headers.",
    "invalid_token": "Get a new access token from the identity provider and repeat the request. If that fails too, "
    "send the `request_id` to the operator.",
    "missing_token": "Sign the user in. Send the access token as `Authorization: Bearer <token>`.",
    "access_denied": "Ask the operator for access. A new token helps only if its claims or scopes differ.",
    "device_limit_reached": "List the devices with `GET /v1/telephony-credentials`, and log one out with "
    "`DELETE /v1/telephony-credentials/{id}`.",
    "grant_not_allowed": "Omit `grant` to get a login token, or ask the operator to allow `sip_password`.",
    "insufficient_scope": "Request an access token with the scope that the `WWW-Authenticate` header names.",
    "push_limit_reached": "Delete a push credential with `DELETE /v1/push-credentials/{id}`.",
    "push_not_allowed": "Ask the operator to allow push credentials for this user.",
    "connection_not_found": "For operators: compare the connection ID with the one in Telnyx's portal.",
    "credential_not_found": "Check the `id`. Another user's credential has this code too. To get a login, call "
    "`POST /v1/telephony-credentials`.",
    "issuer_not_found": "For operators: send the issuer exactly as the configuration names it (the `iss` claim).",
    "not_found": "Check the path, and the path prefix of the proxy.",
    "grant_not_found": "Check the `id`. A grant of another backend has this code too. Expired grants are deleted.",
    "push_credential_not_found": "List the push credentials with `GET /v1/push-credentials`. Another user's push "
    "credential has this code too.",
    "sweep_not_found": "For operators: start a new sweep.",
    "method_not_allowed": "Use a method that the `Allow` header names.",
    "request_timeout": "Send the request again.",
    "ledger_mismatch": "For operators: check `DIALTONE_DATABASE_URL`. If the ledger is the right one, repeat the sweep "
    "with `force`.",
    "push_alias_taken": "Choose another alias, or send a PUT request to the address in the `Location` header.",
    "credential_ended": "Call `POST /v1/telephony-credentials` with the same `device_id`.",
    "body_too_large": "Send only the documented fields.",
    "uri_too_long": "Shorten the path or the query.",
    "unsupported_media_type": "Send `Content-Type: application/json`, and a body that is not compressed.",
    "invalid_cursor": "Start again without `cursor`, or send the `next_cursor` of the previous page unchanged.",
    "invalid_request": "Fix the fields that `errors` lists.",
    "not_before_in_future": "For operators: send a time that is not later than now.",
    "not_confirmed": "For operators: add the field `confirm`.",
    "push_material_refused": "A response has the code of the first fault instead: see [Push material](#push-material).",
    "push_type_mismatch": "Register a separate push credential for the other platform.",
    "rate_limited": "Wait for `Retry-After`. `RateLimit-Remaining` in each response is the number of requests left.",
    "headers_too_large": "Send fewer or shorter headers. Common causes are cookies and a long access token.",
    "internal_error": "Retry once. If it fails again, send the `request_id` to the operator: the log has the cause.",
    "telnyx_forbidden": "Report it to the operator, who checks the permissions of the Telnyx API key.",
    "telnyx_key_rejected": "Report it to the operator, who checks the Telnyx API key.",
    "telnyx_rejected": "Report it to the operator, who checks the connection and Telnyx's error in the log.",
    "audit_unavailable": "Wait for `Retry-After`, then retry.",
    "identity_unavailable": "Wait for `Retry-After`, then retry. The token may be valid, so do not sign the user out.",
    "issue_in_progress": "Wait for `Retry-After`, then repeat the same request. It returns the login.",
    "ledger_unavailable": "Wait for `Retry-After`, then retry.",
    "outbound_limits_unknown": "Wait for `Retry-After`, then retry. An operator must correct the connection at Telnyx, "
    "the permissions of the Telnyx API key, or the policy.",
    "outbound_requirement_not_met": "Wait for `Retry-After`, then retry. An operator must correct the connection "
    "at Telnyx, or the policy.",
    "overloaded": "Wait for `Retry-After`, then repeat the same request. Dialtone did not process it.",
    "telnyx_rate_limited": "Wait for `Retry-After`, then retry.",
    "telnyx_unavailable": "Wait for `Retry-After`, then retry. Telnyx did not respond, failed, or sent a response that "
    "Dialtone cannot parse.",
}
"""The fix for each code. Codes of push material faults have none, because their titles name it."""

ANY_OPERATION = 8
"""A code that this many operations can return is listed under `any`."""


def catalogue(document: dict[str, Any]) -> str:
    """Markdown with a section for each status. `document` is the OpenAPI document of the whole API."""
    calls = _calls_by_code(document)
    kinds = sorted(all_kinds().values(), key=lambda kind: (kind.status, kind.code))
    parts = [HEAD]
    for status, group in groupby(kinds, key=lambda kind: kind.status):
        here = list(group)
        parts.append(_section(status, (kind for kind in here if kind.code not in FAULT_KINDS), calls))
        if material := [kind for kind in here if kind.code in FAULT_KINDS]:
            parts.append(PUSH_MATERIAL + "".join(f"| `{kind.code}` | {kind.title} |\n" for kind in material))
    return "".join(parts)


def _section(status: int, kinds: Iterable[ProblemKind], calls: dict[str, list[str]]) -> str:
    lines = [
        "",
        f"## {status} {HTTPStatus(status).phrase}",
        "",
        "| code | meaning | what to do | retryable | operations |",
        "|---|---|---|---|---|",
    ]
    for kind in kinds:
        retryable = "yes" if kind.retryable else "no"
        cells = (f"`{kind.code}`", kind.title, WHAT_TO_DO[kind.code], retryable, _where(calls[kind.code]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _calls_by_code(document: dict[str, Any]) -> dict[str, list[str]]:
    shared = document["components"]["responses"]
    found: dict[str, list[str]] = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for response in operation["responses"].values():
                name = response.get("$ref", "").rpartition("/")[2]
                for code in shared[name][PROBLEM_CODES] if name else ():
                    found[code].append(f"`{method.upper()} {path}`")
    return found


def _where(calls: list[str]) -> str:
    return "any" if not calls or len(calls) >= ANY_OPERATION else ", ".join(calls)

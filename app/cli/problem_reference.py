"""The catalogue of problem codes in Markdown, generated from the code: the content of `docs/errors.md`."""

from collections import defaultdict
from http import HTTPStatus
from typing import Any

from app.api.openapi_responses import PROBLEM_CODES
from app.api.problems import all_kinds

HEAD = """\
# Problem codes

Generated from the code by `make errors`; do not edit. Every error response is an `application/problem+json` document
(RFC 9457) with `type`, `title`, `status`, `code`, `request_id` and `retryable`. Branch on `code`: it is stable.
The [runbook](runbook.md#what-a-caller-may-report) says what an operator does about problems that the caller cannot fix.
"""

ANY_OPERATION = 8
"""A code that this many operations can return is listed under `any`."""


def catalogue(document: dict[str, Any]) -> str:
    """Markdown with a section for each status. `document` is the OpenAPI document of the whole API."""
    calls = _calls_by_code(document)
    kinds = sorted(all_kinds().values(), key=lambda kind: (kind.status, kind.code))
    lines = [HEAD]
    status = 0
    for kind in kinds:
        if kind.status != status:
            status = kind.status
            lines += [
                "",
                f"## {status} {HTTPStatus(status).phrase}",
                "",
                "| code | meaning | retry | operations |",
                "|---|---|---|---|",
            ]
        again = "after `Retry-After`" if status in (429, 503) else "yes" if kind.retryable else "no"
        lines.append(f"| `{kind.code}` | {kind.title} | {again} | {_where(calls[kind.code])} |")
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

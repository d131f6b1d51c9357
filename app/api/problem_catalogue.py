"""The catalogue of problem codes, as Markdown, from the code itself: what `docs/errors.md` is made of."""

from collections import defaultdict
from http import HTTPStatus
from typing import Any

from app.api.openapi import all_kinds
from app.api.problems import MEDIA_TYPE

HEAD = """\
# Problem codes

Made from the code by `make errors`; do not edit. Every answer that is no success is `application/problem+json`
(RFC 9457) with `type`, `title`, `status`, `code`, `request_id` and `retryable`. Branch on `code`: it does not change.
What an operator does about those that are not the caller's mistake is in the
[runbook](runbook.md#what-a-caller-may-report).
"""

ANY_CALL = 8
"""A code that so many calls may answer with is listed under any call."""


def catalogue(document: dict[str, Any]) -> str:
    """Markdown, a section for each status; `document` is the OpenAPI document, which knows who answers what."""
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
                "| code | means | try again | calls |",
                "|---|---|---|---|",
            ]
        again = "after `Retry-After`" if status in (429, 503) else "yes" if kind.retryable else "no"
        lines.append(f"| `{kind.code}` | {kind.title} | {again} | {_where(calls[kind.code])} |")
    return "\n".join(lines) + "\n"


def _calls_by_code(document: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for answer in operation["responses"].values():
                for code in answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}):
                    found[code].append(f"`{method.upper()} {path}`")
    return found


def _where(calls: list[str]) -> str:
    return "any" if not calls or len(calls) >= ANY_CALL else ", ".join(calls)

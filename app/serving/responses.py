"""Responses that the server writes itself, without the app: rejected requests, and what the fast path answers."""

import random
import time
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus

from app.api.middleware.context import AccessLog
from app.api.problems import MEDIA_TYPE, Problem, ProblemKind
from app.serving.framing import RequestHead
from app.vending.ids import new_id

MAX_RETRY_AFTER_SECONDS = 15

Headers = Iterable[tuple[bytes, bytes]]


@cache
def status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


def header_lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def problem_lines(problem: Problem, common_headers: bytes) -> bytes:
    """A problem document with its headers. `common_headers`: the lines that every response has."""
    body = problem.body()
    own = "".join([f"{name.lower()}: {value}\r\n" for name, value in problem.headers]).encode("latin-1")
    return b"content-type: %b\r\n%bcontent-length: %d\r\n%bx-request-id: %b\r\n\r\n%b" % (
        MEDIA_TYPE.encode(),
        own,
        len(body),
        common_headers,
        problem.request_id.encode("ascii"),
        body,
    )


class Rejections:
    """Answers requests that cannot be read to their end. Their connection closes."""

    def __init__(self, common_headers: Callable[[bytes | None], bytes], access_log: AccessLog) -> None:
        """`common_headers`: the lines that every response has, by the request's `Origin`."""
        self._common_headers = common_headers
        self._access_log = access_log

    def respond(self, kind: ProblemKind, address: str | None, head: RequestHead | None, began: float) -> bytes:
        """Record the rejection, and return the response. `head` is None if it is incomplete.

        `began` is a time of `time.monotonic`.
        """
        method, path = ("-", "-") if head is None else (head.method.decode("ascii"), head.path.decode("ascii"))
        origin = None if head is None else head.by_name.get(b"origin")
        retry = (("Retry-After", str(random.randint(1, MAX_RETRY_AFTER_SECONDS))),)  # noqa: S311 - jitter
        problem = Problem(kind, new_id(), retry if kind.status == HTTPStatus.SERVICE_UNAVAILABLE else ())
        started = time.perf_counter() - (time.monotonic() - began)
        self._access_log(problem.request_id, method, path, "-", kind.status, started, address)
        return status_line(kind.status) + problem_lines(
            problem, self._common_headers(origin) + b"connection: close\r\n"
        )

"""Logs: one JSON object a line (or colour in a terminal), with secrets taken out by construction.

What keeps secrets out: texts of foreign exceptions are never logged, only their type and where they came from; fields
with a secret's name are masked; whatever looks like a token, a key or a PEM block is cut from every text; and a line
break in a value cannot begin a line of its own.
"""

import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

from app.observability.sink import Sink
from app.vending.audit import CIRCUMSTANCES

SECRET_FIELDS = re.compile(
    r"passw|secret|token$|authorization|api_key|private_key|certificate|cookie|project_account", re.IGNORECASE
)
SECRET_SHAPES = re.compile(
    r"eyJ[\w-]+(?:\.[\w-]*)*"  # a JWT, whole or in part
    r"|-----BEGIN[^-]+-----.*?(?:-----END[^-]+-----|\Z)"
    r"|\bKEY[A-Za-z0-9_-]{8,}"  # a Telnyx API key
    r"|\bBearer\s+\S+"
    r"|://[^/\s:@]+:[^/\s@]+@"  # user and password in a URL
    r"|\b[0-9a-f]{32}\b",  # what a SIP password looks like; our own ids are fields of their own
    re.DOTALL,
)
MASK = "[redacted]"
ID_FIELDS = frozenset({"request_id", "lease_id", "audit", "token_sha256", "replica", "level", "timestamp"})
"""Written by us, and in the shape of a secret by chance: a lease id has 32 hex digits."""

LONGEST_TEXT = 500
FRAMES_SHOWN = 12
REMEMBERED_TEXT = 200

_sinks: list[Sink] = []


@dataclass(frozen=True, slots=True)
class Way:
    """The short way of a line: straight to where the handler writes."""

    handler: Any
    is_wanted: bool

    def write(self, text: str) -> None:
        try:
            stream = self.handler.stream
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            pass  # a log that cannot be written must not take the service along


_way: Way | None = None
"""None where lines are for people, in colour."""

QUIET = ("httpx", "httpcore", "aiohttp", "sqlalchemy", "aiosqlite", "asyncpg", "alembic", "asyncio")
"""Libraries that put requests, parameters or results into their debug lines: warnings only, at every level of ours."""


def configure(level: str, *, as_json: bool) -> None:
    """Send every log line of the process, the libraries' too, through the one redacting pipe to stderr."""
    global _way
    shared: list[Processor] = [
        name_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.raiseExceptions = False  # a log that cannot be written must not take the service along
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[first_line, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _way = Way(handler, logging.getLevelName(level.upper()) <= logging.INFO) if as_json else None
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # we write our own access line


def line(event: str, request_id: str | None = None, **fields: Any) -> None:
    """An info line of our own, with known fields. Written on every request, it does not go the long way of the others.

    What a caller may have made up among the fields is cleaned as everywhere.
    """
    if _way is None:
        structlog.get_logger("dialtone").info(event, **fields)
        return
    if not _way.is_wanted:
        return
    for name, value in fields.items():
        if isinstance(value, str) and name not in ID_FIELDS:
            # Long ones are rare, and would make the memory of them large.
            fields[name] = _remembered(value) if len(value) <= REMEMBERED_TEXT else clean(value)
        elif isinstance(value, dict):
            fields[name] = clean(value)
    if request_id is not None:
        fields["request_id"] = request_id
    fields["event"] = event
    fields["level"] = "info"
    fields["timestamp"] = _now()
    # Rust's JSON takes a fifth of the time of the standard library's.
    _way.write(to_json(fields).decode() + "\n")


def request_line(request_id: str, method: str, path: str, status: int, milliseconds: float, client: str | None) -> None:
    """The access log: one line for every request. `request_id` is in a form that we allow; method and path are not."""
    if _way is None:
        fields = {"method": method, "path": path, "status": status, "milliseconds": round(milliseconds, 2)}
        line("request", request_id, **fields, client=client)
    elif _way.is_wanted:
        asked = _asked if len(path) <= REMEMBERED_TEXT else _asked.__wrapped__
        _way.write(
            f'{{"timestamp":"{_now()}","level":"info","event":"request","request_id":"{request_id}",'
            f'{asked(method, path, client)},"status":{status},"milliseconds":{milliseconds:.2f}}}\n'
        )


@contextmanager
def unblocking() -> Iterator[None]:
    """Inside, lines are written by a thread: a reader of the log that stops reading stops nobody else."""
    handler = logging.getLogger().handlers[0]
    if not isinstance(handler, logging.StreamHandler):
        raise TypeError("the log is not configured")
    sink = Sink(handler.stream)
    handler.setStream(sink)
    _sinks.append(sink)
    try:
        yield
    finally:
        sink.close()


def dropped() -> int:
    """Lines that were not written, because nobody took them."""
    return sum(sink.dropped for sink in _sinks)


def name_request(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Which request the line belongs to, if to any."""
    if (request_id := CIRCUMSTANCES.get().request_id) is not None:
        event["request_id"] = request_id
    return event


def first_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A foreign message up to its first line break: what follows is often the repr of something."""
    event["event"] = str(event.get("event", "")).split("\n", 1)[0]
    return event


def describe_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """An exception as its type and its way here. Its text stays out: libraries put values there."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = type(error).__qualname__
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_SHOWN:]
        event["frames"] = [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
        if error.__cause__ is not None:
            event["cause"] = type(error.__cause__).__qualname__
    return event


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Mask what is, or looks like, a secret, in every field."""
    for name, value in event.items():
        if name in ID_FIELDS and isinstance(value, str):
            event[name] = _one_line(value)
        elif not name.startswith("_"):
            event[name] = MASK if SECRET_FIELDS.search(name) else clean(value)
    return event


def clean(value: Any) -> Any:
    """Without what looks like a secret, and on one line."""
    if isinstance(value, str):
        return _one_line(SECRET_SHAPES.sub(MASK, value))
    if isinstance(value, MutableMapping):
        return {key: MASK if SECRET_FIELDS.search(str(key)) else clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(str(value))


@lru_cache(maxsize=2048)
def _remembered(text: str) -> str:
    """Clean; of what comes again and again."""
    return _one_line(SECRET_SHAPES.sub(MASK, text))


@lru_cache(maxsize=2048)
def _asked(method: str, path: str, client: str | None) -> str:
    """What was asked and by whom, clean, as part of a JSON object."""
    return to_json({"method": clean(method), "path": clean(path), "client": clean(client)}).decode()[1:-1]


def _now() -> str:
    now = time.time()
    return f"{_second(int(now))}.{int(now % 1 * 1e6):06d}Z"


@lru_cache(maxsize=4)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _one_line(text: str) -> str:
    """Printable and short: control characters become visible escapes, so that no value forges another line."""
    text = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

"""Configures the log: one JSON object per line, or coloured text in a terminal, with secrets removed (`redaction.py`).

structlog renders all lines but those of the access log and the audit. `log_request` and `log_event` format these lines
themselves: a request for a cached login takes 50 us, and structlog would add 16 for each line (`make bench-quick`).
Libraries that use `logging` pass through structlog's processors. All lines go to the same handler.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from app.observability.log_queue import CLOSE_SECONDS, LogHandler
from app.observability.redaction import MAX_CACHED_CHARS, clean, describe_exception, redact
from app.vending.audit import REQUEST_CONTEXT

WARNINGS_ONLY = ("httpx", "httpcore", "aiohttp", "sqlalchemy", "aiosqlite", "asyncpg", "alembic", "asyncio")
"""Libraries whose debug lines contain requests, parameters or results."""

FLUSH_POLL_SECONDS = 0.01

LEVELS = ("debug", "info", "warning", "error", "critical")

_write_json: Callable[[str], None] | None = None
"""Writes a line that is already rendered. None if lines are not JSON, or if the level excludes `info`."""


def configure(level: str, *, as_json: bool) -> None:
    """Write every log line of the process, including those of libraries, to standard error through redaction."""
    global _write_json
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        add_request_id,
        describe_exception,
        redact,
        structlog.processors.add_log_level,
        add_timestamp,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(_as_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = LogHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[keep_first_line, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _write_json = handler.enqueue if as_json and threshold <= logging.INFO else None
    # structlog passes its lines to the handler directly: a call of `logging` would cost as much as structlog itself.
    write_line = SimpleNamespace(**dict.fromkeys(LEVELS, handler.enqueue))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: write_line,
        cache_logger_on_first_use=False,
    )
    bound_logger.cache_clear()
    logging.raiseExceptions = False  # the service must run without its log
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in WARNINGS_ONLY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # Dialtone writes its own access log


def log_request(request_id: str, method: str, path: str, status: int, milliseconds: float, client: str | None) -> None:
    """The access log. Callers choose the method and the path, but only an accepted form of the request id."""
    if _write_json is None:
        fields = {"method": method, "path": path, "client": client, "status": status}
        bound_logger().info("request", request_id=request_id, **fields, milliseconds=round(milliseconds, 2))
        return
    described = _describe_request if len(path) <= MAX_CACHED_CHARS else _describe_request.__wrapped__
    _write_json(
        f'{{"request_id":"{request_id}",{described(method, path, client)},"status":{status},'
        f'"milliseconds":{milliseconds:.2f},"event":"request","level":"info","timestamp":"{_now()}"}}'
    )


def log_event(event: str, fields: EventDict) -> None:
    """A line of the audit. As `structlog.get_logger().info(event, **fields)`, in a third of the time."""
    if _write_json is None:
        bound_logger().info(event, **fields)
        return
    members = to_json(redact(None, "info", fields)).decode()[1:-1]
    _write_json(f'{{{members},"event":"{event}","level":"info","timestamp":"{_now()}"}}')


@lru_cache(maxsize=4096)
def _describe_request(method: str, path: str, client: str | None) -> str:
    """Members of a JSON object, redacted. Few combinations are frequent."""
    return to_json({"method": clean(method), "path": clean(path), "client": clean(client)}).decode()[1:-1]


@lru_cache(maxsize=1)
def bound_logger() -> FilteringBoundLogger:
    """For frequent lines: binding a logger to the configuration for each line takes as long as rendering it."""
    logger: FilteringBoundLogger = structlog.get_logger("dialtone").bind()
    return logger


def silence() -> None:
    """For commands, whose output is their own: no line below critical is written."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    bound_logger.cache_clear()


@contextmanager
def non_blocking(lock: Path | None = None) -> Iterator[None]:
    """A context in which a thread writes the lines, so that a blocked reader of the log does not block requests.

    `lock` is a file that every process with the same log names, if there are several.
    """
    handler = _handler()
    if handler is None:
        raise TypeError("the log is not configured")
    handler.start(lock)
    try:
        yield
    finally:
        handler.stop()


async def flush() -> None:
    """Wait until the queued lines are written, for CLOSE_SECONDS at most: the log's reader may have stopped reading.

    The time is counted in steps, so that a pause of the whole process, in which no line is written, does not end it.
    """
    handler = _handler()
    for _ in range(int(CLOSE_SECONDS / FLUSH_POLL_SECONDS)):
        if handler is None or handler.is_flushed:
            return
        await asyncio.sleep(FLUSH_POLL_SECONDS)


def dropped() -> int:
    """Lines that were not written, because the queue was full or standard error was broken."""
    handler = _handler()
    return 0 if handler is None else handler.dropped


def _handler() -> LogHandler | None:
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, LogHandler)), None)


def add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The current request's, unless the event has one."""
    if "request_id" not in event and (request_id := REQUEST_CONTEXT.get().request_id) is not None:
        event["request_id"] = request_id
    return event


def keep_first_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut a library's message at its first line break: what follows is often the repr of a value."""
    event["event"] = str(event.get("event", "")).split("\n", 1)[0]
    return event


def add_timestamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """In ISO 8601. structlog's TimeStamper formats the whole time for every line, at four times the cost."""
    event["timestamp"] = _now()
    return event


def _now() -> str:
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_format_second(second)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=4)
def _format_second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _as_json(event: EventDict, **_: Any) -> str:
    """pydantic's serializer takes a fifth of the time of the standard library's."""
    return to_json(event).decode()

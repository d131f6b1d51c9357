"""Traces: spans of requests, of calls to Telnyx and of transactions, where OpenTelemetry is installed and switched on.

What a span says are words of ours: routes, operations, outcomes, the request's id. No user, no address, no text of an
exception. Where spans go is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and others).
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

Value = str | int | float | bool
Note = Callable[[str, Value], None]
"""Adds an attribute to the span that goes on. The attribute `name` renames it."""


class Spans(Protocol):
    """Begins spans, each within the one that goes on."""

    def __call__(
        self, name: str, kind: str = "internal", headers: Mapping[str, str] | None = None, **attributes: Value
    ) -> AbstractContextManager[Note]:
        """`kind`: `server`, `client` or `internal`. `headers` may name the caller's trace (W3C Trace Context)."""


def no_spans(
    name: str, kind: str = "internal", headers: Mapping[str, str] | None = None, **attributes: Value
) -> AbstractContextManager[Note]:
    """Tracing is off."""
    return _NOTHING


def _unnoted(name: str, value: Value) -> None:
    """Nobody listens."""


_NOTHING: AbstractContextManager[Note] = nullcontext(_unnoted)


def is_installed() -> bool:
    """Whether OpenTelemetry is there, its exporter too."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ImportError:
        return False


class Tracing:
    """Spans by OpenTelemetry. `provider` is an SDK's TracerProvider."""

    def __init__(self, provider: Any, version: str) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        self._provider = provider
        self._tracer = provider.get_tracer("dialtone", version)
        self._extract = extract
        self._kinds = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}

    @classmethod
    def exporting(cls, version: str) -> "Tracing":
        """To where OpenTelemetry's variables say. It must be installed."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "dialtone", "service.version": version})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, version)

    @contextmanager
    def __call__(
        self, name: str, kind: str = "internal", headers: Mapping[str, str] | None = None, **attributes: Value
    ) -> Iterator[Note]:
        context = None if headers is None else self._extract(dict(headers))
        # An exception's text may hold anything: neither it nor its traceback becomes part of a span.
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=self._kinds[kind],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def note(attribute: str, value: Value) -> None:
                if attribute == "name":
                    span.update_name(str(value))
                else:
                    span.set_attribute(attribute, value)

            yield note

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()

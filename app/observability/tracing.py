"""Exports traces with OpenTelemetry's SDK, which is an optional dependency.

Other modules get a `Tracer` of `opentelemetry-api`; without the SDK its spans do nothing. OpenTelemetry's own variables
(`OTEL_EXPORTER_OTLP_ENDPOINT` and others) define where spans are sent. A span holds routes, operations, outcomes and
the request id, but no user, no address and no text of an exception.
"""

import importlib.util
from typing import TYPE_CHECKING

from opentelemetry.trace import Tracer, TracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as ExportingProvider

NAME = "dialtone"


def is_installed() -> bool:
    """True if both the SDK and the OTLP exporter are installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ImportError:
        return False


def export_spans(version: str) -> "ExportingProvider":
    """A provider that sends spans in batches. Its `shutdown` sends the rest. Requires the SDK and the exporter."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": NAME, "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def tracer_of(provider: TracerProvider, version: str) -> Tracer:
    return provider.get_tracer(NAME, version)

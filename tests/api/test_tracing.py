"""Traces show the durations of a request's operations and contain no user data. They are exported by OTLP."""

import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.composition.build import build_components
from app.composition.components import Overrides
from app.main import build_server_app
from app.observability.tracing import tracer_of
from app.sandbox.account import DEMO_KEY
from tests.support.databases import migrate_database
from tests.support.http_server import http_client, serve
from tests.support.replicas import replica
from tests.support.sandbox import Telnyx
from tests.support.service import RequestCounter, Service, settings_for
from tests.support.tokens import token


class Traced:
    """A service and its spans."""

    def __init__(self, service: Service, spans: InMemorySpanExporter) -> None:
        self.service = service
        self._spans = spans

    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def requests(self) -> list[ReadableSpan]:
        return [span for span in self.spans() if "route" in str(span.attributes)]

    def tree(self) -> dict[str, str | None]:
        """Each span's name with its parent's, without those of background tasks."""
        names = {span.context.span_id: span.name for span in self.spans() if span.context}
        requests = {span.context.trace_id for span in self.requests() if span.context}
        return {
            span.name: names.get(span.parent.span_id) if span.parent else None
            for span in self.spans()
            if span.context and span.context.trace_id in requests
        }


@pytest.fixture
async def traced(telnyx: Telnyx, sqlite: str) -> AsyncIterator[Traced]:
    await migrate_database(sqlite)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = settings_for(telnyx.url, sqlite, tag_key="tag-key-canary-" * 3)
    components = build_components(settings, Overrides(clock=telnyx.clock, tracer=tracer_of(provider, "test")))
    limiter, app, _ = build_server_app(settings, components)
    counter = RequestCounter(app)
    async with serve(counter, limiter) as url, http_client(url, timeout=60) as client:
        yield Traced(Service(url, client, telnyx, telnyx.clock, counter, limiter, components), exporter)


async def test_span_of_a_request_contains_those_of_telnyx_and_the_ledger(traced: Traced) -> None:
    await traced.service.issue("laptop")

    request = "POST /v1/telephony-credentials"
    tree = traced.tree()
    assert tree[request] is None
    assert tree["Telnyx POST /telephony_credentials"] == request
    assert tree["Telnyx POST /telephony_credentials/{id}/token"] == request
    assert tree["ledger write"] == request


async def test_cached_login_has_one_span_like_that_of_the_app(traced: Traced) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    spans = []
    for _ in range(2):
        answer = await traced.service.ask("POST", headers=headers, json={"device_id": "laptop"})
        spans.append(traced.requests()[-1])

    assert traced.service.app.requests == 1
    created, cached = spans
    assert (created.name, created.kind) == (cached.name, cached.kind)
    assert cached.context
    assert f"{cached.context.trace_id:032x}" == trace
    assert dict(cached.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/telephony-credentials",
        "http.response.status_code": 200,
        "dialtone.request_id": answer.headers["x-request-id"],
    }


async def test_callers_trace_is_continued(traced: Traced) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"

    await traced.service.ask("GET", headers={"traceparent": parent})

    (span,) = [span for span in traced.spans() if span.name == "GET /v1/telephony-credentials"]
    assert span.context
    assert f"{span.context.trace_id:032x}" == trace


async def test_spans_contain_no_secret_no_user_and_no_address(traced: Traced, telnyx: Telnyx) -> None:
    secret = token("user-canary")
    headers = {"Authorization": f"Bearer {secret}", "User-Agent": "agent-canary"}
    body = {"device_id": "device-canary", "label": "label-canary"}
    client = traced.service.client
    issued = (await client.post("/v1/telephony-credentials?q=query-canary", headers=headers, json=body)).json()
    telnyx.fail("status", status=500, body="body-canary", method="POST", times=9)
    await client.post("/v1/telephony-credentials", headers=headers, json=body | {"device_id": "other-canary"})
    await client.get(f"/v1/telephony-credentials/{issued['id']}", headers=headers)
    await client.get("/path-canary")

    exported = " ".join(span.to_json() for span in traced.spans())
    assert "TelnyxServerError" in exported
    for forbidden in ("canary", secret, issued["login_token"], issued["id"], DEMO_KEY, "127.0.0.1"):
        assert forbidden not in exported


async def test_spans_are_exported_by_otlp(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    settings = {
        "DIALTONE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
    }
    try:
        async with replica(telnyx.url, sqlite, tmp_path, settings) as service:
            assert (await service.issue()).status_code == 201
        # The last spans are sent when the service stops.
    finally:
        collector.shutdown()

    sent = b"".join(received)
    assert b"POST /v1/telephony-credentials" in sent
    assert b"Telnyx POST /telephony_credentials" in sent
    assert DEMO_KEY.encode() not in sent

"""Prometheus metrics. `EventMetrics` counts events as they happen; `Metrics` reads current values at each scrape.

Labels hold values that Dialtone defines, such as routes, actions and error names, and never a value from a caller.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.observability.worker_metrics import WorkerMetrics
from app.vending.audit import AuditAction, AuditOutcome, Decision
from app.vending.models import IssueSource
from app.vending.push.expiry_alerts import DaysLeft
from app.vending.service_status import (
    DeliveryStatus,
    KeySetStatus,
    LoginCacheStatus,
    ServiceStatus,
    SharedLoginCacheStatus,
    TelnyxStatus,
)
from app.vending.upkeep.outbound_guard import OutboundStatus

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series per counter, which nothing uses

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
FINGERPRINT_CHARS = 16

Values = Callable[[], Iterable[tuple[Sequence[str], float]]]
"""The label values and the value of each series, at the time of a scrape."""


class EventMetrics:
    """Counters and histograms of requests, decisions and calls to Telnyx."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "dialtone_http_requests", "HTTP requests.", ["method", "route", "status"], registry=registry
        )
        decisions = Counter(
            "dialtone_decisions", "Decisions, as in the audit.", ["action", "outcome"], registry=registry
        )
        refusals = Counter(
            "dialtone_denials", "Requests that were denied or failed, by reason.", ["reason"], registry=registry
        )
        issue_seconds = Histogram(
            "dialtone_issue_seconds", "Time to issue a login.", ["source"], registry=registry, buckets=SECONDS
        )
        calls = Counter("dialtone_telnyx_calls", "Calls to Telnyx.", ["operation", "outcome"], registry=registry)
        call_seconds = Histogram(
            "dialtone_telnyx_call_seconds",
            "Time from sending a request to Telnyx to its complete response.",
            ["operation"],
            registry=registry,
            buckets=SECONDS,
        )
        # `labels` costs more than counting, so each series is looked up once. The caches are bounded, as labels are.
        self._request_series: dict[tuple[str, str, int], Counter] = {}
        self._decisions = cache(lambda action, outcome: decisions.labels(action.value, outcome.value))
        self._refusals = cache(refusals.labels)
        self._issue_seconds = cache(lambda source: issue_seconds.labels(source.value))
        self._calls = cache(calls.labels)
        self._call_seconds = cache(call_seconds.labels)
        self._repeats = self._decisions(AuditAction.REUSED, AuditOutcome.DONE)
        self._repeat_seconds = self._issue_seconds(IssueSource.CACHED)

    def request(self, method: str, route: str, status: int) -> None:
        """`route` is the pattern of the path, and never the path itself."""
        series = self._request_series.get((method, route, status))
        if series is None:
            method = method if method in METHODS else "other"  # a caller can send any word
            series = self._requests.labels(method, route, str(status))
            if method != "other":
                self._request_series[method, route, status] = series
        series.inc()

    def repeat(self, seconds: float) -> None:
        """The same login was returned again. It counts as a decision, but is not an audit event."""
        self._repeats.inc()
        self._repeat_seconds.observe(seconds)

    def decision(self, decision: Decision) -> None:
        self._decisions(decision.action, decision.outcome).inc()
        if decision.is_denial:
            self._refusals(decision.reason or "unknown").inc()
        if decision.source is not None and decision.seconds is not None:
            self._issue_seconds(decision.source).observe(decision.seconds)

    def call(self, operation: str, outcome: str, seconds: float) -> None:
        """One call to Telnyx. `outcome` is `ok` or the class name of an error."""
        self._calls(operation, outcome).inc()
        self._call_seconds(operation).observe(seconds)


class Metrics:
    """Metrics that are read when Prometheus scrapes. Between scrapes they cost nothing."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        service_status: Callable[[], ServiceStatus],
        key_sets: Callable[[], Iterable[KeySetStatus]],
        login_cache: Callable[[], LoginCacheStatus],
        shared_login_cache: Callable[[], SharedLoginCacheStatus | None],
        outbound: Callable[[], Iterable[OutboundStatus]],
        clock: Callable[[], datetime],
        push_days_left: Callable[[], Iterable[DaysLeft]],
        deliveries: Callable[[], Iterable[DeliveryStatus]],
        limiter_failures: Callable[[], int],
        log_lines_dropped: Callable[[], int],
    ) -> None:
        self._registry = registry
        self.workers: WorkerMetrics | None = None
        """Collects the metrics of all workers. None if the service is one process."""
        self._rendered: dict[str, bytes] = {}
        """By media type: what was rendered in this round of the event loop."""
        self._add_identity(key_sets)
        self._add_telnyx(lambda: service_status().telnyx)
        self._add_leases(service_status)
        self._add_login_cache(login_cache)
        self._add_shared_login_cache(shared_login_cache)
        self._add_push(push_days_left)
        self._add_outbound(outbound, clock)
        self._add_events(deliveries)
        self._add_operations(service_status, limiter_failures, log_lines_dropped)

    def join_workers(self, folder: Path, number: int, workers: int) -> None:
        """This process is one of several workers, which exchange their metrics through sockets in the folder."""
        self.workers = WorkerMetrics(folder, number, workers, self._registry)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The current metrics and their media type, in the format that the `Accept` header prefers.

        Rendered once per round of the event loop: it takes as long as a hundred logins, and any client may request it.
        """
        encode, media_type = choose_encoder(accept)
        if self.workers is not None:
            return encode(await self.workers.collect()), media_type
        if media_type not in self._rendered:
            self._rendered[media_type] = encode(self._registry)
            asyncio.get_running_loop().call_soon(self._rendered.clear)
        return self._rendered[media_type], media_type

    def _add_identity(self, key_sets: Callable[[], Iterable[KeySetStatus]]) -> None:
        issuer = ["issuer"]
        self._gauges(
            "key_set_keys",
            "Usable keys of an issuer.",
            issuer,
            # An issuer whose keys are fetched on demand may have none yet, which is no reason for an alert.
            lambda: [([s.issuer], s.keys) for s in key_sets() if s.keys or not s.is_on_demand],
        )
        self._gauges(
            "key_set_age_seconds",
            "Time since an issuer's keys were last confirmed.",
            issuer,
            lambda: [([s.issuer], s.age_seconds) for s in key_sets() if s.age_seconds is not None],
        )
        self._counters(
            "key_set_fetches",
            "Fetches of an issuer's keys.",
            issuer,
            lambda: [([s.issuer], s.fetches) for s in key_sets()],
        )
        self._counters(
            "key_set_fetch_failures",
            "Failed fetches of an issuer's keys.",
            issuer,
            lambda: [([s.issuer], s.failures) for s in key_sets()],
        )

    def _add_telnyx(self, status: Callable[[], TelnyxStatus]) -> None:
        self._gauge("telnyx_breaker_open", "1 while the circuit breaker is open.", lambda: status().is_breaker_open)
        self._gauge("telnyx_calls_in_flight", "Calls to Telnyx in flight.", lambda: status().calls_in_flight)
        self._gauge("telnyx_calls_queued", "Calls to Telnyx that are queued.", lambda: status().calls_queued)
        self._gauge("telnyx_concurrency_limit", "Maximum of calls in flight.", lambda: status().concurrency_limit)
        # Absent until Telnyx sends them.
        self._gauges(
            "telnyx_rate_limit", "Calls per window that Telnyx allows.", [], lambda: _optional(status().rate_limit)
        )
        self._gauges(
            "telnyx_rate_remaining", "Calls left in the window.", [], lambda: _optional(status().rate_remaining)
        )

    def _add_leases(self, status: Callable[[], ServiceStatus]) -> None:
        self._gauges(
            "live_leases", "Leases in the ledger, at the last count.", ["state"], lambda: _by_label(status().leases)
        )
        self._gauges(
            "warm_pool_ready",
            "Ready credentials in the warm pool.",
            ["connection"],
            lambda: _by_label(status().warm_pool_ready),
        )
        self._gauges(
            "warm_pool_target",
            "Credentials that the warm pool should have.",
            ["connection"],
            lambda: _by_label(status().warm_pool_target),
        )
        self._gauge(
            "orphans",
            "Telnyx credentials of this namespace without a lease, at the last check.",
            lambda: status().orphans,
        )
        self._gauge(
            "sweeper_backlog",
            "Ended leases whose credential Telnyx has not confirmed as deleted, at the last sweep.",
            lambda: status().sweeper_backlog,
        )
        self._gauge(
            "irrevocable_leases", "Leases in the backlog whose deletion keeps failing.", lambda: status().irrevocable
        )

    def _add_login_cache(self, status: Callable[[], LoginCacheStatus]) -> None:
        self._gauge("login_cache_devices", "Devices with a cached login.", lambda: status().devices)
        self._gauge("login_cache_capacity", "Devices that fit into the login cache.", lambda: status().capacity)
        self._counter("login_cache_hits", "Requests of devices with a usable cached login.", lambda: status().hits)
        self._counter("login_cache_misses", "Requests of devices without one.", lambda: status().misses)
        self._counter("login_cache_evictions", "Logins that made room for others.", lambda: status().evictions)

    def _add_shared_login_cache(self, status: Callable[[], SharedLoginCacheStatus | None]) -> None:
        """Absent unless the shared login cache is configured."""

        def configured() -> Iterable[SharedLoginCacheStatus]:
            return [known for known in [status()] if known is not None]

        self._gauges(
            "shared_login_cache_available",
            "1 if the store of the shared login cache is available.",
            [],
            lambda: [((), s.is_available) for s in configured()],
        )
        self._counters(
            "shared_login_cache_hits",
            "Logins that were found in the shared login cache.",
            [],
            lambda: [((), s.hits) for s in configured()],
        )
        self._counters(
            "shared_login_cache_misses",
            "Logins that were not found there.",
            [],
            lambda: [((), s.misses) for s in configured()],
        )
        self._counters(
            "shared_login_cache_failures",
            "Failed calls to the store, and entries that could not be used.",
            ["reason"],
            lambda: [([reason], count) for s in configured() for reason, count in s.failures.items()],
        )

    def _add_push(self, days_left: Callable[[], Iterable[DaysLeft]]) -> None:
        self._gauges(
            "push_credential_days_left",
            "Days until a push certificate expires; negative after that.",
            ["type", "app_id", "fingerprint"],
            lambda: [((p.type, p.app_id, p.fingerprint_sha256[:FINGERPRINT_CHARS]), p.days) for p in days_left()],
        )

    def _add_outbound(self, statuses: Callable[[], Iterable[OutboundStatus]], clock: Callable[[], datetime]) -> None:
        """Absent for a connection that was not read yet."""
        connection = ["connection"]
        self._gauges(
            "outbound_spend_unlimited",
            "1 if logins can call phone numbers and Telnyx enforces no daily spend limit.",
            connection,
            lambda: [([s.connection_id], s.is_unlimited) for s in statuses()],
        )
        self._gauges(
            "outbound_rules_unmet",
            "Policy rules whose users cannot log in, because the connection does not meet their requirement.",
            connection,
            lambda: [([s.connection_id], len(s.unmet)) for s in statuses()],
        )
        self._gauges(
            "outbound_check_age_seconds",
            "Time since the outbound limits of a connection were read.",
            connection,
            lambda: [([s.connection_id], (clock() - s.checked_at).total_seconds()) for s in statuses()],
        )

    def _add_events(self, status: Callable[[], Iterable[DeliveryStatus]]) -> None:
        """Absent unless endpoints are configured."""
        endpoint = ["endpoint"]
        self._gauges(
            "events_pending",
            "Events that are not delivered yet, at the last count.",
            endpoint,
            lambda: [([s.endpoint], s.pending) for s in status()],
        )
        self._gauges(
            "events_dead",
            "Events whose delivery was given up, at the last count.",
            endpoint,
            lambda: [([s.endpoint], s.dead) for s in status()],
        )
        self._gauges(
            "events_oldest_seconds",
            "Age of the oldest pending event.",
            endpoint,
            lambda: [([s.endpoint], s.oldest_seconds) for s in status()],
        )
        self._counters(
            "events_delivered",
            "Events that the endpoint accepted.",
            endpoint,
            lambda: [([s.endpoint], s.delivered) for s in status()],
        )
        self._counters(
            "events_failed",
            "Requests with an event that failed.",
            ["endpoint", "reason"],
            lambda: [([s.endpoint, reason], count) for s in status() for reason, count in s.failed.items()],
        )
        self._counters(
            "events_dropped",
            "Pending events that were deleted, because a reload excluded them from the endpoint.",
            endpoint,
            lambda: [([s.endpoint], s.dropped) for s in status()],
        )

    def _add_operations(
        self,
        status: Callable[[], ServiceStatus],
        limiter_failures: Callable[[], int],
        lines_dropped: Callable[[], int],
    ) -> None:
        self._gauge(
            "audit_events_queued", "Audit events that are not yet in the ledger.", lambda: status().audit_queued
        )
        self._counter("audit_events_dropped", "Audit events that were logged only.", lambda: status().audit_dropped)
        self._counter("limiter_store_failures", "Failures of the rate limiter's shared store.", limiter_failures)
        self._counter("log_lines_dropped", "Log lines that could not be written.", lines_dropped)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(f"dialtone_{name}", text, registry=self._registry).set_function(read)

    def _gauges(self, name: str, text: str, labels: Sequence[str], read: Values) -> None:
        self._registry.register(Series(GaugeMetricFamily, f"dialtone_{name}", text, labels, read))

    def _counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._counters(name, text, [], lambda: [((), read())])

    def _counters(self, name: str, text: str, labels: Sequence[str], read: Values) -> None:
        self._registry.register(Series(CounterMetricFamily, f"dialtone_{name}", text, labels, read))


class Series(Collector):
    """Collects what `Gauge.set_function` does not support: external counters, and changing labels."""

    def __init__(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        text: str,
        labels: Sequence[str],
        read: Values,
    ) -> None:
        self._family = family
        self._name = name
        self._text = text
        self._labels = labels
        self._read = read

    def collect(self) -> Iterator[Metric]:
        metric = self._family(self._name, self._text, labels=self._labels)
        for labels, value in self._read():
            metric.add_metric(labels, value)
        yield metric


def _by_label(counts: Mapping[str, int]) -> Iterable[tuple[Sequence[str], float]]:
    return [([label], count) for label, count in counts.items()]


def _optional(value: float | None) -> Iterable[tuple[Sequence[str], float]]:
    return [] if value is None else [((), value)]

"""Metrics in Prometheus' form. Each part is asked for its figures when somebody looks, and pays nothing until then."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for


class KeySetFigures(Protocol):
    """How one issuer's keys are doing."""

    @property
    def issuer(self) -> str: ...
    @property
    def keys(self) -> int: ...
    @property
    def age_seconds(self) -> float | None:
        """Since they were last confirmed; None where they are fixed, or where there are none."""

    @property
    def fetches(self) -> int: ...
    @property
    def failures(self) -> int: ...


class PushDaysLeft(Protocol):
    """How long one push credential has."""

    @property
    def type(self) -> str: ...
    @property
    def app_id(self) -> str: ...
    @property
    def fingerprint_sha256(self) -> str: ...
    @property
    def days(self) -> float: ...


class CarrierFigures(Protocol):
    """How calls to Telnyx are faring."""

    @property
    def is_open(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def concurrency_limit(self) -> float: ...
    @property
    def rate_limit(self) -> float | None: ...
    @property
    def rate_remaining(self) -> float | None: ...


class BacklogFigures(Protocol):
    """Ended leases that Telnyx has not yet confirmed."""

    @property
    def waiting(self) -> int: ...
    @property
    def stuck(self) -> int: ...


class AuditFigures(Protocol):
    """Events of the audit."""

    @property
    def waiting(self) -> int: ...
    @property
    def dropped(self) -> int: ...


class Metrics:
    """Everything that `/metrics` shows, in a registry of this app's own."""

    def __init__(
        self,
        *,
        key_sets: Callable[[], Iterable[KeySetFigures]],
        push_days_left: Callable[[], Iterable[PushDaysLeft]],
        carrier: Callable[[], CarrierFigures],
        pool_ready: Callable[[], Mapping[str, int]],
        orphans: Callable[[], int],
        backlog: Callable[[], BacklogFigures],
        live_leases: Callable[[], Mapping[str, int]],
        audit: AuditFigures,
        limiter_failures: Callable[[], int],
        log_lines_dropped: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._registry = registry
        self._registry.register(_KeySets(key_sets))
        self._registry.register(_PushCredentials(push_days_left))
        self._registry.register(_Carrier(carrier))
        self._registry.register(_Leases(live_leases, pool_ready, orphans, backlog))
        self._registry.register(_Keeping(audit, limiter_failures, log_lines_dropped))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The figures of this moment and their media type, in the form that the `Accept` header prefers."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


class _KeySets(Collector):
    def __init__(self, key_sets: Callable[[], Iterable[KeySetFigures]]) -> None:
        self._key_sets = key_sets

    def collect(self) -> Iterator[Metric]:
        keys = GaugeMetricFamily("dialtone_key_set_keys", "Usable keys of an issuer.", labels=["issuer"])
        age = GaugeMetricFamily(
            "dialtone_key_set_age_seconds", "Since an issuer's fetched keys were last confirmed.", labels=["issuer"]
        )
        fetches = CounterMetricFamily("dialtone_key_set_fetches", "Fetches of an issuer's keys.", labels=["issuer"])
        failures = CounterMetricFamily(
            "dialtone_key_set_fetch_failures", "Fetches of an issuer's keys that brought none.", labels=["issuer"]
        )
        for status in self._key_sets():
            keys.add_metric([status.issuer], status.keys)
            fetches.add_metric([status.issuer], status.fetches)
            failures.add_metric([status.issuer], status.failures)
            if status.age_seconds is not None:
                age.add_metric([status.issuer], status.age_seconds)
        yield from (keys, age, fetches, failures)


class _PushCredentials(Collector):
    def __init__(self, days_left: Callable[[], Iterable[PushDaysLeft]]) -> None:
        self._days_left = days_left

    def collect(self) -> Iterator[Metric]:
        labels = ["type", "app_id", "fingerprint"]
        days = GaugeMetricFamily(
            "dialtone_push_credential_days_left", "Until a push certificate expires; below 0 it has.", labels=labels
        )
        for found in self._days_left():
            days.add_metric([found.type, found.app_id, found.fingerprint_sha256[:16]], found.days)
        yield days


class _Carrier(Collector):
    def __init__(self, carrier: Callable[[], CarrierFigures]) -> None:
        self._carrier = carrier

    def collect(self) -> Iterator[Metric]:
        now = self._carrier()
        figures: list[tuple[str, str, float | None]] = [
            ("breaker_open", "1 while calls to Telnyx are not even tried.", float(now.is_open)),
            ("calls_in_flight", "Calls to Telnyx under way.", now.in_flight),
            ("calls_waiting", "Calls that wait for their turn.", now.waiting),
            ("concurrency_limit", "Calls that may be under way at once.", now.concurrency_limit),
            ("rate_limit", "Calls in a window, as Telnyx last said.", now.rate_limit),
            ("rate_remaining", "Calls left in the window, as Telnyx last said.", now.rate_remaining),
        ]
        for name, meaning, value in figures:
            if value is not None:
                yield GaugeMetricFamily(f"dialtone_telnyx_{name}", meaning, value=value)


class _Leases(Collector):
    def __init__(
        self,
        live: Callable[[], Mapping[str, int]],
        ready: Callable[[], Mapping[str, int]],
        orphans: Callable[[], int],
        backlog: Callable[[], BacklogFigures],
    ) -> None:
        self._live = live
        self._ready = ready
        self._orphans = orphans
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("dialtone_live_leases", "Leases in the ledger, some seconds ago.", labels=["state"])
        for state, count in self._live().items():
            live.add_metric([state], count)
        yield live
        ready = GaugeMetricFamily("dialtone_pool_ready", "Credentials made ahead.", labels=["connection"])
        for connection_id, count in self._ready().items():
            ready.add_metric([connection_id], count)
        yield ready
        meaning = "Credentials of our naming that no lease stands for, at the last walk."
        yield GaugeMetricFamily("dialtone_orphans", meaning, value=self._orphans())
        backlog = self._backlog()
        meaning = "Ended leases whose credential Telnyx has not yet confirmed to be gone, at the last sweep."
        yield GaugeMetricFamily("dialtone_sweeper_backlog", meaning, value=backlog.waiting)
        meaning = "Those of them whose deletion was tried again and again: somebody should look."
        yield GaugeMetricFamily("dialtone_stuck_deletions", meaning, value=backlog.stuck)


class _Keeping(Collector):
    """What is kept of what happens, and what could not be."""

    def __init__(
        self, audit: AuditFigures, limiter_failures: Callable[[], int], lines_dropped: Callable[[], int]
    ) -> None:
        self._audit = audit
        self._limiter_failures = limiter_failures
        self._lines_dropped = lines_dropped

    def collect(self) -> Iterator[Metric]:
        meaning = "Events of the audit that have no row in the ledger yet."
        yield GaugeMetricFamily("dialtone_audit_events_waiting", meaning, value=self._audit.waiting)
        for name, meaning, value in (
            ("audit_events_dropped", "Events that will never have a row; they have a log line.", self._audit.dropped),
            ("limiter_store_failures", "Times the limiter's shared store did not answer.", self._limiter_failures()),
            ("log_lines_dropped", "Log lines that nobody took in time.", self._lines_dropped()),
        ):
            yield CounterMetricFamily(f"dialtone_{name}", meaning, value=value)

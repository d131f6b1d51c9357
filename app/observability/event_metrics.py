"""Figures that are counted as things happen: requests, decisions, calls to Telnyx. Labels are words of ours only."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.vending.audit import Action, Decision, Outcome
from app.vending.models import Way

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Traffic:
    """Counters and histograms, in that registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "dialtone_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._decisions = Counter(
            "dialtone_decisions", "What was decided, as in the audit.", ["action", "outcome"], registry=registry
        )
        self._refusals = Counter(
            "dialtone_refusals", "Requests refused or failed, by our reason.", ["reason"], registry=registry
        )
        self._issue_seconds = Histogram(
            "dialtone_issue_seconds", "Time to give a login, by the way.", ["way"], registry=registry, buckets=SECONDS
        )
        self._calls = Counter(
            "dialtone_telnyx_calls", "Calls that were sent to Telnyx.", ["operation", "outcome"], registry=registry
        )
        self._call_seconds = Histogram(
            "dialtone_telnyx_call_seconds",
            "From sending to Telnyx to its whole answer.",
            ["operation"],
            registry=registry,
            buckets=SECONDS,
        )

        self._answered: dict[tuple[str, str, int], Counter] = {}
        """The series of `requests`, found once: looking one up costs more than counting."""
        # All are words of ours, so few; looked up once each.
        self._decided = cache(lambda action, outcome: self._decisions.labels(action.value, outcome.value))
        self._refused = cache(self._refusals.labels)
        self._called = cache(self._calls.labels)
        self._call_timed = cache(self._call_seconds.labels)
        self._way_timed = cache(lambda way: self._issue_seconds.labels(way.value))
        self._repeated = self._decisions.labels(Action.REUSED.value, Outcome.DONE.value)
        self._repeat_seconds = self._issue_seconds.labels(Way.HOT.value)

    def request(self, method: str, route: str, status: int) -> None:
        """`route` is the pattern of the address, never the address itself."""
        series = self._answered.get((method, route, status))
        if series is None:
            # A method can be anything that a caller makes up; what is kept here is bounded by ours.
            method = method if method in METHODS else "other"
            series = self._requests.labels(method, route, str(status))
            self._answered[method, route, status] = series
        series.inc()

    def repeat(self, seconds: float) -> None:
        """A device got the login again that it got a moment ago: counted as every such decision."""
        self._repeated.inc()
        self._repeat_seconds.observe(seconds)

    def decision(self, decision: Decision) -> None:
        self._decided(decision.action, decision.outcome).inc()
        if decision.is_refusal:
            self._refused(decision.reason or "unknown").inc()
        if decision.way is not None and decision.seconds is not None:
            self._way_timed(decision.way).observe(decision.seconds)

    def call(self, operation: str, outcome: str, seconds: float) -> None:
        """One call to Telnyx; the outcome is `ok` or the name of our error."""
        self._called(operation, outcome).inc()
        self._call_timed(operation).observe(seconds)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

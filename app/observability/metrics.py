"""Metrics in Prometheus' form. Each part is asked for its figures when somebody looks, and pays nothing until then."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


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


class Metrics:
    """Everything that `/metrics` shows, in a registry of this app's own."""

    def __init__(self, key_sets: Callable[[], Iterable[KeySetFigures]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_KeySets(key_sets))

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

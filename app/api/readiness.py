"""Readiness: whether this replica should receive traffic, from checks of its dependencies."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from app.vending.errors import CarrierForbidden, CarrierKeyRefused, CarrierNotFound, DialtoneError

PROBE_SECONDS = 5.0


REFUSALS_BEFORE_UNREADY = 3
"""Once Telnyx has accepted the key, it takes so many refusals in a row to believe that it was withdrawn."""


_log = structlog.get_logger("dialtone.readiness")


class Condition(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """Away, but devices that have a login go on: no reason to take traffic elsewhere."""
    FAILED = "failed"


@dataclass(slots=True)
class Probe:
    """One dependency, looked at no more often than `fresh_seconds`. Raising means failed."""

    look: Callable[[], Awaitable[Condition]]
    fresh_seconds: float
    condition: Condition = Condition.FAILED
    _looked_at: float = field(default=-float("inf"), repr=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def now(self, name: str) -> Condition:
        async with self._lock:
            fresh = self.fresh_seconds if self.condition is Condition.OK else min(self.fresh_seconds, 1.0)
            if time.monotonic() - self._looked_at < fresh:
                return self.condition
            before = self.condition
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    self.condition = await self.look()
            except (DialtoneError, TimeoutError) as error:
                self.condition = Condition.FAILED
                _log.warning("probe_failed", probe=name, error=type(error).__name__)
            if self.condition is not before:
                _log.info("probe_changed", probe=name, condition=self.condition.value)
            self._looked_at = time.monotonic()
            return self.condition


class Readiness:
    """Whether traffic is welcome. Draining says no before anything stops working."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self.is_draining = False

    async def look(self) -> tuple[bool, dict[str, str]]:
        conditions = await asyncio.gather(*(probe.now(name) for name, probe in self._probes.items()))
        checks = {name: condition.value for name, condition in zip(self._probes, conditions, strict=True)}
        return not self.is_draining and Condition.FAILED not in conditions, checks


class IdentityProbe:
    """Whether issuers' keys can be had. One issuer that is away takes nothing from the others."""

    def __init__(self, issuers: Callable[[], Sequence[str]], missing_keys: Callable[[], Awaitable[list[str]]]) -> None:
        self._issuers = issuers
        self._missing_keys = missing_keys

    async def __call__(self) -> Condition:
        missing = await self._missing_keys()
        if missing:
            _log.warning("keys_missing", issuers=missing)
        if len(missing) == len(self._issuers()):
            return Condition.FAILED
        return Condition.DEGRADED if missing else Condition.OK


class TelnyxProbe:
    """Whether Telnyx takes our key and knows our connection. Its being away is not our being unready."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._has_worked = False
        self._refusals = 0

    async def __call__(self) -> Condition:
        try:
            await self._check()
        except (CarrierKeyRefused, CarrierForbidden, CarrierNotFound):
            self._refusals += 1
            if self._has_worked and self._refusals < REFUSALS_BEFORE_UNREADY:
                return Condition.DEGRADED
            raise
        except DialtoneError:
            return Condition.DEGRADED
        self._has_worked, self._refusals = True, 0
        return Condition.OK

"""Readiness: whether this replica should receive traffic, from checks of its dependencies."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from app.vending.errors import DialtoneError, TelnyxForbidden, TelnyxKeyRejected, TelnyxNotFound

PROBE_SECONDS = 5.0


REJECTIONS_BEFORE_UNREADY = 3
"""Consecutive rejections after which a key that has worked counts as withdrawn."""


_log = structlog.get_logger("dialtone.readiness")


class CheckStatus(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """The dependency is unavailable, but devices that have a login keep working. The replica stays ready."""
    FAILED = "failed"


@dataclass(slots=True)
class ReadinessCheck:
    """One dependency, checked at most every `fresh_seconds`. An exception means FAILED."""

    check: Callable[[], Awaitable[CheckStatus]]
    fresh_seconds: float
    status: CheckStatus = CheckStatus.FAILED
    _looked_at: float = field(default=-float("inf"), repr=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def current(self, name: str) -> CheckStatus:
        async with self._lock:
            fresh = self.fresh_seconds if self.status is CheckStatus.OK else min(self.fresh_seconds, 1.0)
            if time.monotonic() - self._looked_at < fresh:
                return self.status
            before = self.status
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    self.status = await self.check()
            except (DialtoneError, TimeoutError) as error:
                self.status = CheckStatus.FAILED
                _log.warning("readiness_check_failed", check=name, error=type(error).__name__)
            if self.status is not before:
                _log.info("readiness_check_changed", check=name, status=self.status.value)
            self._looked_at = time.monotonic()
            return self.status


class Readiness:
    """Whether this replica should receive traffic. A draining replica is not ready, although it still works."""

    def __init__(self, probes: Mapping[str, ReadinessCheck]) -> None:
        self._probes = probes
        self.is_draining = False

    async def check(self) -> tuple[bool, dict[str, str]]:
        conditions = await asyncio.gather(*(probe.current(name) for name, probe in self._probes.items()))
        checks = {name: condition.value for name, condition in zip(self._probes, conditions, strict=True)}
        return not self.is_draining and CheckStatus.FAILED not in conditions, checks


class IdentityCheck:
    """Checks that the issuers' keys are available. One issuer's outage does not affect the others."""

    def __init__(self, issuers: Callable[[], Sequence[str]], missing_keys: Callable[[], Awaitable[list[str]]]) -> None:
        self._issuers = issuers
        self._missing_keys = missing_keys

    async def __call__(self) -> CheckStatus:
        missing = await self._missing_keys()
        if missing:
            _log.warning("issuer_keys_unavailable", issuers=missing)
        if len(missing) == len(self._issuers()):
            return CheckStatus.FAILED
        return CheckStatus.DEGRADED if missing else CheckStatus.OK


class TelnyxCheck:
    """Checks that Telnyx accepts the API key and knows the connection. An outage of Telnyx only means DEGRADED."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._has_worked = False
        self._refusals = 0

    async def __call__(self) -> CheckStatus:
        try:
            await self._check()
        except (TelnyxKeyRejected, TelnyxForbidden, TelnyxNotFound):
            self._refusals += 1
            if self._has_worked and self._refusals < REJECTIONS_BEFORE_UNREADY:
                return CheckStatus.DEGRADED
            raise
        except DialtoneError:
            return CheckStatus.DEGRADED
        self._has_worked, self._refusals = True, 0
        return CheckStatus.OK

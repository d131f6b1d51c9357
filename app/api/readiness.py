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
"""Once Telnyx has accepted the key, it takes so many refusals in a row to believe that it was withdrawn."""


_log = structlog.get_logger("dialtone.readiness")


class CheckStatus(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """Away, but devices that have a login go on: no reason to take traffic elsewhere."""
    FAILED = "failed"


@dataclass(slots=True)
class ReadinessCheck:
    """One dependency, looked at no more often than `fresh_seconds`. Raising means failed."""

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
                _log.warning("probe_failed", probe=name, error=type(error).__name__)
            if self.status is not before:
                _log.info("probe_changed", probe=name, condition=self.status.value)
            self._looked_at = time.monotonic()
            return self.status


class Readiness:
    """Whether traffic is welcome. Draining says no before anything stops working."""

    def __init__(self, probes: Mapping[str, ReadinessCheck]) -> None:
        self._probes = probes
        self.is_draining = False

    async def check(self) -> tuple[bool, dict[str, str]]:
        conditions = await asyncio.gather(*(probe.current(name) for name, probe in self._probes.items()))
        checks = {name: condition.value for name, condition in zip(self._probes, conditions, strict=True)}
        return not self.is_draining and CheckStatus.FAILED not in conditions, checks


class IdentityCheck:
    """Whether issuers' keys can be had. One issuer that is away takes nothing from the others."""

    def __init__(self, issuers: Callable[[], Sequence[str]], missing_keys: Callable[[], Awaitable[list[str]]]) -> None:
        self._issuers = issuers
        self._missing_keys = missing_keys

    async def __call__(self) -> CheckStatus:
        missing = await self._missing_keys()
        if missing:
            _log.warning("keys_missing", issuers=missing)
        if len(missing) == len(self._issuers()):
            return CheckStatus.FAILED
        return CheckStatus.DEGRADED if missing else CheckStatus.OK


class TelnyxCheck:
    """Whether Telnyx takes our key and knows our connection. Its being away is not our being unready."""

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

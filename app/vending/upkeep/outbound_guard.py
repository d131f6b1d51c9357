"""The outbound guard: reads the outbound limits of every connection, and enforces the requirements of policy rules.

A connection keeps the result of its last successful read, so an outage of Telnyx denies no login. Without such a
result, a login that needs Telnyx reads the limits first, and is denied if that fails.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.errors import OutboundLimitsUnknown, TelnyxError, TelnyxForbidden, TelnyxNotFound, TelnyxRejected
from app.vending.outbound import OutboundProfile, OutboundRequirement, why_unmet
from app.vending.policy import RETRY_UNMET_SECONDS, ActivePolicy, Allowance, Policy
from app.vending.single_flight import SingleFlight

CHECK_INTERVAL = timedelta(minutes=5)
"""Between two reads of a connection, which are two calls to Telnyx. Limits change rarely."""

RECHECK_INTERVAL = timedelta(minutes=1)
"""The same for a connection that does not meet a requirement or could not be read, so that a fix takes effect soon."""

REPORT_INTERVAL = timedelta(days=1)
"""Between two reports of a finding that does not change."""

READ_SECONDS = 5.0
"""Time that a login waits for a read."""

REJECTED_READS = (TelnyxForbidden, TelnyxNotFound, TelnyxRejected)
"""Errors that last until an operator corrects the connection, its profile or the permissions of the API key."""


class OutboundReader(Protocol):
    async def read(self, connection_id: str) -> OutboundProfile | None:
        """None if the connection cannot call phone numbers. Raises TelnyxError."""


@dataclass(frozen=True, slots=True)
class UnmetRule:
    """A rule whose connection does not meet its requirement."""

    rule: str
    connection_id: str
    requirement: OutboundRequirement
    why: str

    def __str__(self) -> str:
        return f"rule {self.rule}: connection {self.connection_id} is not `{self.requirement}`: {self.why}"


@dataclass(frozen=True, slots=True)
class OutboundStatus:
    """The outbound limits of one connection at the last successful read."""

    connection_id: str
    profile: OutboundProfile | None
    checked_at: datetime
    unmet: tuple[UnmetRule, ...]
    """The enforced rules with this connection whose users cannot log in."""

    @property
    def is_unlimited(self) -> bool:
        """Whether phone numbers can be called without an enforced daily spend limit."""
        return self.profile is not None and self.profile.daily_limit_usd is None


@dataclass(frozen=True, slots=True)
class FailedRead:
    """A connection whose outbound limits could not be read."""

    connection_id: str
    rules: tuple[str, ...]
    """The enforced rules that require something of the connection."""
    why: str
    has_earlier_result: bool
    """Whether an earlier result still applies. Without one, users of the rules get no new login."""

    @classmethod
    def of(
        cls, policy: Policy, connection_id: str, error: TelnyxError, *, has_earlier_result: bool = False
    ) -> "FailedRead":
        requirements = policy.outbound_requirements().items()
        rules = (rule for (connection, _), names in requirements if connection == connection_id for rule in names)
        return cls(connection_id, tuple(rules), why_unread(error), has_earlier_result)

    def __str__(self) -> str:
        rules = f"rule {', '.join(self.rules)}: " if self.rules else ""
        return f"{rules}the outbound limits of connection {self.connection_id} cannot be read: {self.why}"


class OutboundGuard:
    """The outbound limits of the connections that the policy uses."""

    def __init__(
        self,
        telnyx: OutboundReader,
        policy: ActivePolicy,
        clock: Callable[[], datetime],
        report: Callable[[OutboundStatus], None],
        report_failure: Callable[[FailedRead], None],
    ) -> None:
        """`report` gets each connection that is unlimited or does not meet a rule: at each change, and daily.

        `report_failure` gets failed reads in the same way.
        """
        self._telnyx = telnyx
        self._policy = policy
        self._clock = clock
        self._report = report
        self._report_failure = report_failure
        self._check_lock = asyncio.Lock()
        self._flights: SingleFlight[OutboundProfile | None] = SingleFlight(READ_SECONDS)
        self._known: dict[str, tuple[OutboundProfile | None, datetime]] = {}
        self._tried_at: dict[str, datetime] = {}
        self._rejected_at: dict[str, datetime] = {}
        """When Telnyx rejected the last read of a connection."""
        self._reported: dict[tuple[str, str], tuple[object, datetime]] = {}

    async def check(self) -> None:
        """Read the connections that are due. A connection that cannot be read keeps its last result.

        Waits for a check in progress, so that its results are known afterwards.
        """
        async with self._check_lock:
            await self._check()

    async def _check(self) -> None:
        connections = self._policy.policy.connections()
        if forgotten := self._known.keys() - connections:
            self._known = {name: known for name, known in self._known.items() if name not in forgotten}
            self._apply()
        for connection_id in sorted(connections):
            if self._is_due(connection_id):
                self._tried_at[connection_id] = self._clock()
                try:
                    await self._read_reported(connection_id)
                except TelnyxError:
                    continue
        for status in self.statuses():
            self._report_finding(status)

    async def ensure_met(self, allowance: Allowance) -> None:
        """Check the connection before a login that needs Telnyx.

        Raises OutboundRequirementNotMet. If the limits are unknown, raises OutboundLimitsUnknown if Telnyx rejects the
        read, and otherwise TelnyxError or IssueInProgress.
        """
        if allowance.outbound is OutboundRequirement.ANY:
            return
        connection_id = allowance.connection_id
        if connection_id not in self._known:
            self._check_rejection(connection_id)
            try:
                await self._flights.do(connection_id, None, lambda: self._read_reported(connection_id))
            except REJECTED_READS as error:
                raise OutboundLimitsUnknown(retry_after_seconds=RETRY_UNMET_SECONDS) from error
        self._policy.check_outbound(allowance)

    async def unmet_rules(self, policy: Policy, connection_id: str) -> list[UnmetRule]:
        """The rules of a policy whose requirement this connection does not meet, read now. Raises TelnyxError.

        Logins follow what was read, so that a reload does not deny them because of an older result.
        """
        return list(find_unmet(policy, connection_id, await self._read(connection_id)))

    def report_failed_read(self, connection_id: str, error: TelnyxError) -> None:
        """Report the failure, if enforced rules require limits of the connection and it was not reported before."""
        is_known = connection_id in self._known
        failed = FailedRead.of(self._policy.policy, connection_id, error, has_earlier_result=is_known)
        # The errors of one outage may differ, but are one finding.
        cause = failed.why if isinstance(error, REJECTED_READS) else None
        if failed.rules and self._is_new((connection_id, "failed read"), (failed.rules, is_known, cause)):
            self._report_failure(failed)

    def forget_rejections(self) -> None:
        """Let the next login read again: a reload may have applied an API key with other permissions."""
        self._rejected_at.clear()

    def statuses(self) -> list[OutboundStatus]:
        """Of every connection that was read."""
        policy = self._policy.policy
        return [
            OutboundStatus(connection_id, profile, checked_at, tuple(find_unmet(policy, connection_id, profile)))
            for connection_id, (profile, checked_at) in sorted(self._known.items())
        ]

    async def _read_reported(self, connection_id: str) -> OutboundProfile | None:
        """Raises TelnyxError."""
        try:
            return await self._read(connection_id)
        except TelnyxError as error:
            self.report_failed_read(connection_id, error)
            raise

    async def _read(self, connection_id: str) -> OutboundProfile | None:
        """Raises TelnyxError."""
        try:
            profile = await self._telnyx.read(connection_id)
        except REJECTED_READS:
            self._rejected_at[connection_id] = self._clock()
            raise
        self._rejected_at.pop(connection_id, None)
        self._reported.pop((connection_id, "failed read"), None)
        self._known[connection_id] = profile, self._clock()
        self._apply()
        return profile

    def _check_rejection(self, connection_id: str) -> None:
        """Raises OutboundLimitsUnknown if Telnyx rejected a read recently. Logins must not repeat such calls."""
        rejected_at = self._rejected_at.get(connection_id)
        if rejected_at is not None and _is_recent(rejected_at, RECHECK_INTERVAL, self._clock()):
            raise OutboundLimitsUnknown(retry_after_seconds=RETRY_UNMET_SECONDS)

    def _apply(self) -> None:
        """Let logins follow the results."""
        self._policy.use_unmet(
            (connection_id, requirement)
            for connection_id, (profile, _) in self._known.items()
            for requirement in OutboundRequirement
            if why_unmet(profile, requirement) is not None
        )

    def _is_due(self, connection_id: str) -> bool:
        tried_at = self._tried_at.get(connection_id)
        if tried_at is None:
            return True
        known = self._known.get(connection_id)
        is_good = known is not None and not list(find_unmet(self._policy.policy, connection_id, known[0]))
        return not _is_recent(tried_at, CHECK_INTERVAL if is_good else RECHECK_INTERVAL, self._clock())

    def _report_finding(self, status: OutboundStatus) -> None:
        if not status.unmet and not status.is_unlimited:
            self._reported.pop((status.connection_id, "limits"), None)
        elif self._is_new((status.connection_id, "limits"), (status.profile, status.unmet)):
            self._report(status)

    def _is_new(self, subject: tuple[str, str], finding: object) -> bool:
        """Whether the finding has changed or was last reported a day ago. If so, it counts as reported now."""
        before, now = self._reported.get(subject), self._clock()
        if before is not None and before[0] == finding and _is_recent(before[1], REPORT_INTERVAL, now):
            return False
        self._reported[subject] = finding, now
        return True


def find_unmet(policy: Policy, connection_id: str, profile: OutboundProfile | None) -> Iterable[UnmetRule]:
    """The enforced rules with this connection whose requirement it does not meet."""
    for (connection, requirement), rules in policy.outbound_requirements().items():
        why = why_unmet(profile, requirement)
        if connection == connection_id and why is not None:
            yield from (UnmetRule(rule, connection_id, requirement, why) for rule in rules)


def _is_recent(moment: datetime, interval: timedelta, now: datetime) -> bool:
    """A moment in the future means that the clock was set back. It must not delay reads for the difference."""
    return moment <= now < moment + interval


def why_unread(error: TelnyxError) -> str:
    """Why outbound limits could not be read, as a part of a sentence."""
    match error:
        case TelnyxNotFound():
            return "the connection or its outbound voice profile does not exist at Telnyx"
        case TelnyxForbidden():
            return "the API key may not read it or its outbound voice profile"
        case _:
            return str(error).partition(". ")[0].removesuffix(".")

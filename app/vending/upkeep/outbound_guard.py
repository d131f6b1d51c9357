"""The outbound guard: reads the outbound limits of every connection, and enforces the requirements of policy rules.

A connection keeps the result of its last successful read, so an outage of Telnyx denies no login. Without such a
result, a login that needs Telnyx reads the limits first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.errors import TelnyxError
from app.vending.outbound import OutboundProfile, OutboundRequirement, why_unmet
from app.vending.policy import ActivePolicy, Allowance, Policy
from app.vending.single_flight import SingleFlight

CHECK_INTERVAL = timedelta(minutes=5)
"""Between two reads of a connection, which are two calls to Telnyx. Limits change rarely."""

RECHECK_INTERVAL = timedelta(minutes=1)
"""The same for a connection that does not meet a requirement or could not be read, so that a fix takes effect soon."""

REPORT_INTERVAL = timedelta(days=1)
"""Between two reports of a finding that does not change."""

READ_SECONDS = 5.0
"""Time that a login waits for a read."""


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


class OutboundGuard:
    """The outbound limits of the connections that the policy uses."""

    def __init__(
        self,
        telnyx: OutboundReader,
        policy: ActivePolicy,
        clock: Callable[[], datetime],
        report: Callable[[OutboundStatus], None],
    ) -> None:
        """`report` gets each connection that is unlimited or does not meet a rule: at each change, and daily."""
        self._telnyx = telnyx
        self._policy = policy
        self._clock = clock
        self._report = report
        self._flights: SingleFlight[OutboundProfile | None] = SingleFlight(READ_SECONDS)
        self._known: dict[str, tuple[OutboundProfile | None, datetime]] = {}
        self._tried_at: dict[str, datetime] = {}
        self._reported: dict[str, tuple[OutboundProfile | None, tuple[UnmetRule, ...], datetime]] = {}

    async def check(self) -> None:
        """Read the connections that are due. A connection that cannot be read keeps its last result."""
        connections = self._policy.policy.connections()
        if forgotten := self._known.keys() - connections:
            self._known = {name: known for name, known in self._known.items() if name not in forgotten}
            self._apply()
        for connection_id in sorted(connections):
            if self._is_due(connection_id):
                self._tried_at[connection_id] = self._clock()
                try:
                    await self._read(connection_id)
                except TelnyxError:
                    continue
        for status in self.statuses():
            self._report_finding(status)

    async def ensure_met(self, allowance: Allowance) -> None:
        """Check the connection before a login that needs Telnyx.

        Raises OutboundRequirementNotMet, and TelnyxError or IssueInProgress if the limits are unknown.
        """
        if allowance.outbound is OutboundRequirement.ANY:
            return
        connection_id = allowance.connection_id
        if connection_id not in self._known:
            await self._flights.do(connection_id, None, lambda: self._read(connection_id))
        self._policy.check_outbound(allowance)

    async def unmet_rules(self, policy: Policy, *, skips_unread: bool = True) -> list[UnmetRule]:
        """The rules of a policy whose connections do not meet their requirement, read now.

        Logins follow what was read, so that a reload does not deny them because of an older result. Raises TelnyxError
        for a connection that cannot be read, unless `skips_unread`.
        """
        unmet: list[UnmetRule] = []
        for connection_id in sorted({connection for connection, _ in policy.outbound_requirements()}):
            try:
                profile = await self._read(connection_id)
            except TelnyxError:
                if skips_unread:
                    continue
                raise
            unmet += find_unmet(policy, connection_id, profile)
        return unmet

    def statuses(self) -> list[OutboundStatus]:
        """Of every connection that was read."""
        policy = self._policy.policy
        return [
            OutboundStatus(connection_id, profile, checked_at, tuple(find_unmet(policy, connection_id, profile)))
            for connection_id, (profile, checked_at) in sorted(self._known.items())
        ]

    async def _read(self, connection_id: str) -> OutboundProfile | None:
        """Raises TelnyxError."""
        profile = await self._telnyx.read(connection_id)
        self._known[connection_id] = profile, self._clock()
        self._apply()
        return profile

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
        return self._clock() >= tried_at + (CHECK_INTERVAL if is_good else RECHECK_INTERVAL)

    def _report_finding(self, status: OutboundStatus) -> None:
        if not status.unmet and not status.is_unlimited:
            self._reported.pop(status.connection_id, None)
            return
        before = self._reported.get(status.connection_id)
        finding, now = (status.profile, status.unmet), self._clock()
        if before is not None and before[:2] == finding and now < before[2] + REPORT_INTERVAL:
            return
        self._reported[status.connection_id] = *finding, now
        self._report(status)


def find_unmet(policy: Policy, connection_id: str, profile: OutboundProfile | None) -> Iterable[UnmetRule]:
    """The enforced rules with this connection whose requirement it does not meet."""
    for (connection, requirement), rules in policy.outbound_requirements().items():
        why = why_unmet(profile, requirement)
        if connection == connection_id and why is not None:
            yield from (UnmetRule(rule, connection_id, requirement, why) for rule in rules)

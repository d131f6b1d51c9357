"""Not-before entries: reject unexpired tokens that were issued before a moment, by user, session or issuer.

An entry is compared with a token's issue time, so it never rejects a new login and never has to be removed. Every
replica holds the entries of the last day in memory. Older entries can only reject tokens that are older still; for
those the ledger is queried, once per token.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.vending.errors import TokenRejected
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import Principal
from app.vending.telephony.lease import Lease

MEMORY = timedelta(hours=24)
"""Entries made within this time are held in memory."""

SKEW = timedelta(minutes=10)
"""Maximum difference between the clocks of an identity provider and a replica."""

LOGOUT_SECOND = timedelta(seconds=1)
"""Issue times are whole seconds: tokens issued in the same second as a logout count as issued before it."""


class Reach(StrEnum):
    """Which tokens an entry applies to."""

    ISSUER = "issuer"
    USER = "user"
    SESSION = "session"
    SESSIONLESS = "sessionless"
    """A user's tokens that name no session."""


@dataclass(frozen=True, slots=True)
class NotBeforeTarget:
    """Target of an entry: an issuer, or a subject or session of that issuer."""

    issuer: str
    reach: Reach = Reach.ISSUER
    name: str = ""
    """The subject or the session; empty for a whole issuer."""


@dataclass(frozen=True, slots=True)
class NotBefore:
    """Rejects the target's tokens that were issued before `not_before`."""

    target: NotBeforeTarget
    not_before: datetime
    made_at: datetime


@dataclass(frozen=True, slots=True)
class LogoutClaims:
    """Claims of a verified OIDC logout token: end one session, or all sessions of a user."""

    issuer: str
    token_id: str
    """The `jti`: a logout token is accepted once."""
    issued_at: datetime
    expires_at: datetime
    subject: str | None
    session: str | None

    def not_before_entries(self, now: datetime) -> list[NotBefore]:
        """The entries that reject the tokens issued up to the logout."""
        targets = []
        if self.session is not None:
            targets.append(NotBeforeTarget(self.issuer, Reach.SESSION, self.session))
        if self.subject is not None and self.issuer not in GRANT_ISSUERS:  # every grant has a session
            # A token without a session may belong to the ended one. It is rejected, because a new login costs little.
            reach = Reach.USER if self.session is None else Reach.SESSIONLESS
            targets.append(NotBeforeTarget(self.issuer, reach, self.subject))
        return [NotBefore(target, self.issued_at + LOGOUT_SECOND, now) for target in targets]


class NotBeforeLedger(Protocol):
    async def not_before(self, targets: Sequence[NotBeforeTarget]) -> datetime | None:
        """The latest `not_before` of these targets; None if there is none."""

    async def set_not_before(self, not_before_entry: NotBefore) -> None: ...

    async def log_out(self, logout: LogoutClaims, now: datetime) -> list[Lease]:
        """In one transaction, write the logout's entries and set the live leases of its session or user to REVOKING.

        Returns those leases. The user's leases with an unknown session count as leases of the session. Raises
        LogoutTokenRejected if the logout was recorded before.
        """


class NotBeforeRegistry:
    """The not-before entries that this replica knows."""

    def __init__(self, ledger: NotBeforeLedger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._entries: OrderedDict[NotBeforeTarget, NotBefore] = OrderedDict()
        self.are_loaded = False
        """Whether the last day's entries have been read. Until then the ledger is queried for every token."""

    def __len__(self) -> int:
        return len(self._entries)

    async def set(self, not_before_entry: NotBefore) -> None:
        """Write the entry for every replica, and apply it here at once."""
        await self._ledger.set_not_before(not_before_entry)
        self.add(not_before_entry)

    async def log_out(self, logout: LogoutClaims, now: datetime) -> list[Lease]:
        """Record a logout for every replica. Returns the leases it ended. Raises LogoutTokenRejected if used before."""
        ended = await self._ledger.log_out(logout, now)
        for not_before_entry in logout.not_before_entries(now):
            self.add(not_before_entry)
        return ended

    def add(self, not_before_entry: NotBefore) -> None:
        """Hold the entry in memory. Of two entries for one target, the later `not_before` applies."""
        known = self._entries.get(not_before_entry.target)
        if known is None or known.not_before <= not_before_entry.not_before:
            self._entries[not_before_entry.target] = not_before_entry
            self._entries.move_to_end(not_before_entry.target)
        horizon = self._clock() - MEMORY - SKEW
        while self._entries and next(iter(self._entries.values())).made_at < horizon:
            self._entries.popitem(last=False)

    def check_remembered(self, principal: Principal) -> None:
        """Raises TokenRejected if an entry in memory rejects the token."""
        if not self._entries:
            return
        for target in targets_of(principal):
            not_before_entry = self._entries.get(target)
            if not_before_entry is not None and is_before(principal, not_before_entry.not_before):
                raise TokenRejected("not_before")

    def check_now(self, principal: Principal) -> bool:
        """Raises TokenRejected if an entry in memory rejects the token. False if the ledger may have an older one."""
        self.check_remembered(principal)
        is_recent = principal.issued_at is not None and principal.issued_at > self._clock() - MEMORY + SKEW
        return self.are_loaded and is_recent

    async def check(self, principal: Principal) -> None:
        """Raises TokenRejected if any entry rejects the token, and LedgerUnavailable if only the ledger could tell."""
        if self.check_now(principal):
            return
        not_before = await self._ledger.not_before(targets_of(principal))
        if not_before is not None and is_before(principal, not_before):
            raise TokenRejected("not_before")


def targets_of(principal: Principal) -> tuple[NotBeforeTarget, ...]:
    """Every target whose entries apply to the principal's token."""
    issuer, session = principal.issuer, principal.session
    last = (
        NotBeforeTarget(issuer, Reach.SESSIONLESS, principal.subject)
        if session is None
        else NotBeforeTarget(issuer, Reach.SESSION, session)
    )
    return NotBeforeTarget(issuer), NotBeforeTarget(issuer, Reach.USER, principal.subject), last


def is_before(principal: Principal, not_before: datetime) -> bool:
    """Whether the token was issued before that moment. A token without an issue time counts as older."""
    return principal.issued_at is None or principal.issued_at < not_before

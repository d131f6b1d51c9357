"""Marks: "no token issued before", for a user, a session or a whole issuer. They end tokens that have not expired.

A mark bears on a token through the token's issue time, so a new login is never shut out, and a mark never needs to be
taken back. Marks of the last day are in the memory of every replica; older ones matter only to tokens that are older
still, and for those the ledger is asked, once a token.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.vending.errors import TokenRejected
from app.vending.models import Principal
from app.vending.telephony.lease import Lease

MEMORY = timedelta(hours=24)
"""Marks made within this time are in memory."""

SKEW = timedelta(minutes=10)
"""How far the clocks of an identity provider and a replica may lie apart."""

LOGOUT_SECOND = timedelta(seconds=1)
"""Issue times are whole seconds: tokens of the very second of a logout count as earlier ones."""


class Reach(StrEnum):
    """Whose tokens a mark is about."""

    ISSUER = "issuer"
    USER = "user"
    SESSION = "session"
    SESSIONLESS = "sessionless"
    """A user's tokens that do not say which session they belong to."""


@dataclass(frozen=True, slots=True)
class NotBeforeTarget:
    """Whom a mark is about: an issuer, and below it a subject or a session."""

    issuer: str
    reach: Reach = Reach.ISSUER
    name: str = ""
    """The subject or the session; nothing for a whole issuer."""


@dataclass(frozen=True, slots=True)
class NotBefore:
    """No token of the target that was issued before `not_before` is accepted."""

    target: NotBeforeTarget
    not_before: datetime
    made_at: datetime


@dataclass(frozen=True, slots=True)
class LogoutClaims:
    """What a verified OIDC logout token asks: end one session, or all of a user's."""

    issuer: str
    token_id: str
    """Its `jti`: a logout token is good once."""
    issued_at: datetime
    expires_at: datetime
    subject: str | None
    session: str | None

    def not_before_entries(self, now: datetime) -> list[NotBefore]:
        """What refuses the tokens that were issued up to the logout."""
        targets = []
        if self.session is not None:
            targets.append(NotBeforeTarget(self.issuer, Reach.SESSION, self.session))
        if self.subject is not None:
            # Tokens that name no session might be the ended session's: refused, as a new login costs little.
            reach = Reach.USER if self.session is None else Reach.SESSIONLESS
            targets.append(NotBeforeTarget(self.issuer, reach, self.subject))
        return [NotBefore(target, self.issued_at + LOGOUT_SECOND, now) for target in targets]


class NotBeforeLedger(Protocol):
    async def not_before(self, targets: Sequence[NotBeforeTarget]) -> datetime | None:
        """The latest mark on any of them."""

    async def set_not_before(self, not_before_entry: NotBefore) -> None: ...

    async def log_out(self, logout: LogoutClaims, now: datetime) -> list[Lease]:
        """In one transaction: its marks, and the live leases of its session or user become REVOKING.

        Returns those. A lease whose session is not known counts as the session's, if it is the user's. Raises
        LogoutTokenRejected if the logout was written down before.
        """


class NotBeforeRegistry:
    """The marks that bear on tokens, as this replica knows them."""

    def __init__(self, ledger: NotBeforeLedger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._marks: OrderedDict[NotBeforeTarget, NotBefore] = OrderedDict()
        self.are_loaded = False
        """Whether the last day's marks were read. Until then the ledger is asked about every token."""

    def __len__(self) -> int:
        return len(self._marks)

    async def set(self, not_before_entry: NotBefore) -> None:
        """From now on, on every replica."""
        await self._ledger.set_not_before(not_before_entry)
        self.add(not_before_entry)

    async def log_out(self, logout: LogoutClaims, now: datetime) -> list[Lease]:
        """Record a logout for every replica. Returns the leases it ended. Raises LogoutTokenRejected if used before."""
        ended = await self._ledger.log_out(logout, now)
        for not_before_entry in logout.not_before_entries(now):
            self.add(not_before_entry)
        return ended

    def add(self, not_before_entry: NotBefore) -> None:
        """Remember it; of two on one target, the later moment holds."""
        known = self._marks.get(not_before_entry.target)
        if known is None or known.not_before <= not_before_entry.not_before:
            self._marks[not_before_entry.target] = not_before_entry
            self._marks.move_to_end(not_before_entry.target)
        horizon = self._clock() - MEMORY - SKEW
        while self._marks and next(iter(self._marks.values())).made_at < horizon:
            self._marks.popitem(last=False)

    def check_remembered(self, principal: Principal) -> None:
        """Raises TokenRejected if a mark in memory ends the token."""
        if not self._marks:
            return
        for target in targets_of(principal):
            not_before_entry = self._marks.get(target)
            if not_before_entry is not None and is_before(principal, not_before_entry.not_before):
                raise TokenRejected("not_before_mark")

    async def check(self, principal: Principal) -> None:
        """Raises TokenRejected if any mark ends the token, and LedgerUnavailable where only the ledger can say."""
        self.check_remembered(principal)
        is_recent = principal.issued_at is not None and principal.issued_at > self._clock() - MEMORY + SKEW
        if self.are_loaded and is_recent:
            return
        not_before = await self._ledger.not_before(targets_of(principal))
        if not_before is not None and is_before(principal, not_before):
            raise TokenRejected("not_before_mark")


def targets_of(principal: Principal) -> tuple[NotBeforeTarget, ...]:
    """Every target whose marks bear on the user's token."""
    issuer, session = principal.issuer, principal.session
    last = (
        NotBeforeTarget(issuer, Reach.SESSIONLESS, principal.subject)
        if session is None
        else NotBeforeTarget(issuer, Reach.SESSION, session)
    )
    return NotBeforeTarget(issuer), NotBeforeTarget(issuer, Reach.USER, principal.subject), last


def is_before(principal: Principal, not_before: datetime) -> bool:
    """A token that does not say when it was issued cannot show that it is newer."""
    return principal.issued_at is None or principal.issued_at < not_before

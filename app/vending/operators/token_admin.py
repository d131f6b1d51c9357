"""What operators may do to all replicas at once: end tokens before their time, have keys fetched anew.

Who may is decided before (`PolicyInForce.admit_operator`, or a shell on the machine).
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from app.vending.audit import Action, Audit, Decision, Outcome
from app.vending.errors import NotBeforeInFuture, UnknownIssuer
from app.vending.models import Owner
from app.vending.not_before import SKEW, Mark, Marks, Reach, Target
from app.vending.upkeep.change_feed import KeyRefresh


class Notices(Protocol):
    async def ask_for_keys(self, wanted: KeyRefresh) -> None:
        """Tell every replica."""


class Keys(Protocol):
    def issuers(self) -> Iterable[str]:
        """Every configured `iss`."""

    async def refresh_keys(self, issuer: str) -> bool:
        """Fetch that issuer's keys now. Whether that succeeded."""


class Operations:
    """Acts of an operator. Each raises LedgerUnavailable when it cannot be told to the other replicas."""

    def __init__(self, marks: Marks, notices: Notices, keys: Keys, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._marks = marks
        self._notices = notices
        self._keys = keys
        self._clock = clock

    async def refuse_tokens(self, target: Target, not_before: datetime | None) -> Mark:
        """From now on refuse the target's tokens that were issued before that moment, or before now.

        Raises UnknownIssuer; and NotBeforeInFuture, because that would shut out tokens that are not issued yet.
        """
        self._check_issuer(target.issuer)
        now = self._clock()
        if not_before is not None and not_before > now + SKEW:
            raise NotBeforeInFuture
        mark = Mark(target, not_before or now, now)
        await self._marks.set(mark)
        owner = Owner(target.issuer, target.name) if target.reach is Reach.USER else None
        details = {"issuer": target.issuer, "reach": target.reach.value, "not_before": mark.not_before.isoformat()}
        await self._audit.record(Decision(Action.ADMINISTERED, reason="tokens_refused", owner=owner, details=details))
        return mark

    async def refresh_keys(self, issuer: str | None) -> dict[str, bool]:
        """Fetch an issuer's keys anew, or everybody's, here and on every replica; by issuer, whether it worked here.

        Raises UnknownIssuer.
        """
        if issuer is not None:
            self._check_issuer(issuer)
        wanted = list(self._keys.issuers()) if issuer is None else [issuer]
        for name in wanted:
            await self._notices.ask_for_keys(KeyRefresh(name, self._clock()))
        refreshed = {name: await self._keys.refresh_keys(name) for name in wanted}
        for name, is_good in refreshed.items():
            outcome = Outcome.DONE if is_good else Outcome.FAILED
            decision = Decision(Action.ADMINISTERED, outcome, "keys_refreshed", details={"issuer": name})
            await self._audit.record(decision)
        return refreshed

    def _check_issuer(self, issuer: str) -> None:
        if issuer not in self._keys.issuers():
            raise UnknownIssuer

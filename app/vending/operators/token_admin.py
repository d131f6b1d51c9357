"""Operator actions that affect every replica: reject tokens before their expiry, refresh signing keys.

The caller checks access first (`ActivePolicy.authorize_operator`, or a shell on the machine).
"""

import asyncio
import copy
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from app.vending.audit import Audit, AuditAction, AuditOutcome, Decision
from app.vending.errors import IssuerNotFound, NotBeforeInFuture
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import UserKey
from app.vending.not_before import SKEW, NotBefore, NotBeforeRegistry, NotBeforeTarget, Reach
from app.vending.service_status import KeySetStatus
from app.vending.upkeep.change_feed import KeyRefresh
from app.vending.visibility import ALL_ISSUERS, Visibility


class RefreshNotices(Protocol):
    async def request_key_refresh(self, wanted: KeyRefresh) -> None:
        """Notify every replica."""


class KeyRefresher(Protocol):
    def issuers(self) -> Iterable[str]:
        """Every issuer, as the configuration names it."""

    def accepts_issuer(self, iss: str) -> bool:
        """Whether users may have this issuer."""

    async def refresh_keys(self, issuer: str) -> bool:
        """Fetch the issuer's keys now. Returns whether that succeeded."""

    def key_sets(self) -> list[KeySetStatus]:
        """The state of every issuer's keys on this replica."""


class TokenAdmin:
    """Operator actions on tokens and keys. Each raises LedgerUnavailable if the other replicas cannot be notified."""

    def __init__(
        self,
        not_before: NotBeforeRegistry,
        notices: RefreshNotices,
        keys: KeyRefresher,
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        self._audit = audit
        self._not_before = not_before
        self._notices = notices
        self._keys = keys
        self._clock = clock
        self.visibility = ALL_ISSUERS

    def visible_to(self, visibility: Visibility) -> "TokenAdmin":
        """The actions of an operator on visible issuers. For other issuers, each raises IssuerNotFound."""
        limited = copy.copy(self)
        limited.visibility = visibility
        return limited

    def key_sets(self) -> list[KeySetStatus]:
        """The state of the keys of visible issuers on this replica. A tenant has the keys of its template."""
        return [status for status in self._keys.key_sets() if self.visibility.includes_some_of(status.issuer)]

    async def set_not_before(self, target: NotBeforeTarget, not_before: datetime | None) -> NotBefore:
        """Reject the target's tokens that were issued before `not_before`, by default before now.

        Raises IssuerNotFound, and NotBeforeInFuture for a later moment: it would reject tokens not issued yet.
        """
        self.visibility.check_issuer(target.issuer)
        # Grants may be off now and on again later, while a stolen grant has not expired.
        if target.issuer not in GRANT_ISSUERS and not self._keys.accepts_issuer(target.issuer):
            raise IssuerNotFound
        now = self._clock()
        if not_before is not None and not_before > now + SKEW:
            raise NotBeforeInFuture
        not_before_entry = NotBefore(target, not_before or now, now)
        await self._not_before.set(not_before_entry)
        user_key = UserKey(target.issuer, target.name) if target.reach is Reach.USER else None
        details = {
            "issuer": target.issuer,
            "reach": target.reach.value,
            "not_before": not_before_entry.not_before.isoformat(),
        }
        await self._audit.record(
            Decision(AuditAction.ADMIN_ACTION, reason="tokens_refused", user_key=user_key, details=details)
        )
        return not_before_entry

    async def refresh_keys(self, issuer: str | None) -> dict[str, bool]:
        """Fetch one issuer's keys, or all issuers' keys, on every replica. Returns by issuer whether it worked here.

        Raises IssuerNotFound.
        """
        issuers = [name for name in self._keys.issuers() if self.visibility.includes(name)]
        if issuer is not None and issuer not in issuers:
            raise IssuerNotFound
        wanted = issuers if issuer is None else [issuer]
        for name in wanted:
            await self._notices.request_key_refresh(KeyRefresh(name, self._clock()))
        # Together, because an issuer that does not respond takes seconds.
        fetched = await asyncio.gather(*map(self._keys.refresh_keys, wanted))
        refreshed = dict(zip(wanted, fetched, strict=True))
        for name, is_good in refreshed.items():
            outcome = AuditOutcome.DONE if is_good else AuditOutcome.FAILED
            decision = Decision(AuditAction.ADMIN_ACTION, outcome, "keys_refreshed", details={"issuer": name})
            await self._audit.record(decision)
        return refreshed

"""Issuing: a device asks for a login and gets one. Follow `CredentialIssuer.issue` from the top.

Here is what the policy allows, what is at hand, and that callers who want the same share one piece of work. What is not
at hand is made in `create.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Audit, Decision, going_to
from app.vending.errors import (
    Busy,
    CarrierFailed,
    CarrierForbidden,
    CarrierKeyRefused,
    CarrierThrottled,
    CarrierUnreachable,
    CarrierUnreadable,
    DialtoneError,
    LeaseEnded,
    LeaseNotFound,
    LedgerUnavailable,
)
from app.vending.models import Grant, IssueRequest, Owner, Principal, Way
from app.vending.policy import PolicyInForce, Terms
from app.vending.single_flight import Flights
from app.vending.telephony.create import LoginMaker
from app.vending.telephony.durations import LAST_USE
from app.vending.telephony.lease import Lease, State
from app.vending.telephony.login_cache import Login, LoginsAtHand, Question

AWAY = (
    Busy,
    CarrierFailed,
    CarrierForbidden,
    CarrierKeyRefused,
    CarrierThrottled,
    CarrierUnreachable,
    CarrierUnreadable,
    LedgerUnavailable,
)
"""Trouble that says nothing about the device: if its last login still works it gets that one again meanwhile."""

RETRY_WHILE_AWAY = timedelta(seconds=30)
"""When a device that was served from memory during trouble should ask again."""


class Ledger(Protocol):
    async def find(self, lease_id: str) -> Lease | None:
        """Raises LedgerUnavailable."""


class CredentialIssuer:
    """Hands logins to devices."""

    def __init__(
        self,
        *,
        policy: PolicyInForce,
        ledger: Ledger,
        maker: LoginMaker,
        at_hand: LoginsAtHand,
        audit: Audit,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        patience_seconds: float,
        admit: Callable[[int], None],
    ) -> None:
        """`admit` raises CarrierThrottled if, beside so many, one more login could not be made in time."""
        self._policy = policy
        self._ledger = ledger
        self._maker = maker
        self._at_hand = at_hand
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._flights: Flights[Login] = Flights(patience_seconds, admit)

    async def issue(self, principal: Principal, wanted: IssueRequest) -> Login:
        """A login for the device: the one at hand, or renewed, or new.

        Raises Refused, Busy, LedgerUnavailable, AuditUnavailable or a CarrierError.
        """
        began = self._monotonic()
        try:
            login = await self._decide(principal, wanted)
        except DialtoneError as error:
            self._audit.note(Decision.against(error, principal.owner, wanted.device_id))
            error.is_noted = True
            raise
        return await self._handed_out(login, began)

    def at_hand(self, principal: Principal, wanted: IssueRequest, now: datetime) -> Login | None:
        """The login to hand out, if it is at hand and that is all there is to it. None: `issue` has more to do."""
        held = self._at_hand.held(principal.owner, wanted.device_id)
        if held is None or now >= held.login.refresh_after:
            return None
        policy = self._policy.policy
        if held.answers is None or not _is_same(held.answers, (policy, principal, wanted)):
            try:
                terms = self._policy.decide(principal, wanted)
            except DialtoneError:
                return None
            if not _fits(held.login, wanted, terms):
                return None
            # What a proposal would change is noted each time, so it is decided each time.
            held.answers = None if policy.has_proposals else (policy, principal, wanted)
        return held.login

    def is_repeat(self, login: Login, address: str | None, user_agent: str | None, seconds: float) -> bool:
        """Whether what `at_hand` found was given away to the same place a moment ago: then it is told of by now."""
        return self._audit.is_repeat((login.lease.id, address, user_agent), seconds)

    def hand_out(self, login: Login, seconds: float) -> None:
        """What `at_hand` found is given away, and told. Not where the audit is required: that may have to wait."""
        self._audit.note(_handed_out(login, seconds))

    async def refresh(self, principal: Principal, lease_id: str) -> Login:
        """A fresh login token on the user's lease. Raises LeaseNotFound and LeaseEnded beside what `issue` raises."""
        began = self._monotonic()
        self._policy.admit(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.owner != principal.owner:
            raise LeaseNotFound
        if lease.state not in (State.PENDING, State.ACTIVE):
            raise LeaseEnded
        wanted = IssueRequest(device_id=lease.device_id, platform=lease.platform)
        terms = self._policy.decide(principal, wanted)
        login = await self._flights.join(
            (lease.owner, wanted.device_id), lease_id, lambda: self._maker.make(principal, wanted, terms, lease_id)
        )
        return await self._handed_out(login, began)

    @property
    def under_way(self) -> int:
        """How many logins are being made."""
        return len(self._flights)

    async def drain(self) -> None:
        """Wait until no login is being made."""
        await self._flights.drain()

    async def _decide(self, principal: Principal, wanted: IssueRequest) -> Login:
        terms = self._policy.decide(principal, wanted)
        owner = principal.owner
        if (login := self.ready(owner, wanted, terms)) is not None:
            return login
        try:
            return await self._flights.join(
                (owner, wanted.device_id), (wanted, terms), lambda: self._maker.make(principal, wanted, terms)
            )
        except AWAY:
            if (login := self._last_use(owner, wanted)) is not None:
                return login
            raise

    async def _handed_out(self, login: Login, began: float) -> Login:
        """Told before it is given away: a required audit that fails keeps it here, at hand for the next try."""
        seconds = self._monotonic() - began
        if login.way is Way.HOT and self._audit.is_repeat(going_to(login.lease.id), seconds):
            return login
        await self._audit.record(_handed_out(login, seconds))
        return login

    def ready(self, owner: Owner, wanted: IssueRequest, terms: Terms) -> Login | None:
        """The device's login from memory, if it has life enough and nothing about it would change. The hot path."""
        login = self._at_hand.get(owner, wanted.device_id)
        is_ready = login is not None and self._clock() < login.refresh_after and _fits(login, wanted, terms)
        return login if is_ready else None

    def _last_use(self, owner: Owner, wanted: IssueRequest) -> Login | None:
        """While Telnyx or the ledger is away: the login last handed out, if it still works."""
        login = self._at_hand.get(owner, wanted.device_id)
        now = self._clock()
        if login is None or wanted.grant is not Grant.LOGIN_TOKEN or login.expires_at < now + LAST_USE:
            return None
        soon = min(now + RETRY_WHILE_AWAY, login.expires_at)
        return replace(login, refresh_after=soon)


def _handed_out(login: Login, seconds: float) -> Decision:
    token_sha256 = None if login.token is None else login.token.sha256
    return Decision.handed_out(login.lease, login.way, seconds, token_sha256)


def _is_same(question: Question, other: Question) -> bool:
    """A verified token is one Principal and a reload another policy, so these two are compared by identity."""
    return question[0] is other[0] and question[1] is other[1] and question[2] == other[2]


def _fits(login: Login, wanted: IssueRequest, terms: Terms) -> bool:
    """Whether nothing about the device would change."""
    lease = login.lease
    return (
        wanted.grant is Grant.LOGIN_TOKEN
        and wanted.platform is lease.platform
        and (wanted.label is None or wanted.label == lease.label)
        and (wanted.ttl_seconds is None or terms.ttl.total_seconds() == lease.ttl_seconds)
        and lease.connection_id == terms.allowance.connection_id
        and (terms.session is None or terms.session == lease.session)
    )

"""Issuing logins to devices. Start reading at `CredentialIssuer.issue`.

This module applies the policy, answers from the login cache and lets concurrent callers share one flight. `create.py`
creates the logins that are not cached.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.audit import Audit, Decision, repeat_key
from app.vending.errors import (
    DialtoneError,
    IssueInProgress,
    LeaseEnded,
    LeaseNotFound,
    LedgerUnavailable,
    OutboundLimitsUnknown,
    TelnyxForbidden,
    TelnyxKeyRejected,
    TelnyxRateLimited,
    TelnyxResponseInvalid,
    TelnyxServerError,
    TelnyxUnreachable,
)
from app.vending.grants.binding import DeviceBinding
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import IssueRequest, IssueSource, LoginMethod, Principal, UserKey
from app.vending.not_before import NotBeforeRegistry
from app.vending.outbound import OutboundRequirement
from app.vending.policy import ActivePolicy, Allowance, IssueTerms
from app.vending.single_flight import SingleFlight
from app.vending.telephony.create import LoginFactory
from app.vending.telephony.durations import MIN_FALLBACK_LIFETIME, replacement_time
from app.vending.telephony.last_use import LastUses
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.login_cache import CachedLogin, DecisionInput, Login, LoginCache

UNAVAILABLE = (
    IssueInProgress,
    OutboundLimitsUnknown,
    TelnyxServerError,
    TelnyxForbidden,
    TelnyxKeyRejected,
    TelnyxRateLimited,
    TelnyxUnreachable,
    TelnyxResponseInvalid,
    LedgerUnavailable,
)
"""Errors that the device did not cause. It then gets its cached login, if that login still works."""

RETRY_WHILE_UNAVAILABLE = timedelta(seconds=30)
"""A device that got its cached login during an outage refreshes after this time."""


class IssueLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None:
        """Raises LedgerUnavailable."""


class CredentialIssuer:
    """Issues logins to devices."""

    def __init__(
        self,
        *,
        policy: ActivePolicy,
        ledger: IssueLedger,
        login_factory: LoginFactory,
        login_cache: LoginCache,
        last_uses: LastUses,
        binding: DeviceBinding,
        not_before: NotBeforeRegistry,
        audit: Audit,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        flights: SingleFlight[Login],
        ensure_outbound: Callable[[Allowance], Awaitable[None]],
    ) -> None:
        """`ensure_outbound` checks the connection before a call to Telnyx, as `OutboundGuard.ensure_met` describes."""
        self._policy = policy
        self._ledger = ledger
        self._login_factory = login_factory
        self._login_cache = login_cache
        self._last_uses = last_uses
        self._binding = binding
        self._not_before = not_before
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._flights = flights
        self._ensure_outbound = ensure_outbound

    async def issue(self, principal: Principal, wanted: IssueRequest) -> Login:
        """A login for the device: cached, renewed or new.

        Raises AccessDenied, IssueInProgress, LedgerUnavailable, AuditUnavailable or a TelnyxError, and TokenRejected
        if the token is rejected while the request waits.
        """
        began = self._monotonic()
        try:
            login = await self._decide(principal, wanted)
        except DialtoneError as error:
            self._audit.record_nowait(Decision.denial(error, principal.user_key, wanted.device_id))
            error.is_recorded = True
            raise
        return await self._record(login, began)

    def cached_login(self, principal: Principal, wanted: IssueRequest, now: datetime) -> CachedLogin | None:
        """The device's entry, if its login can be returned as it is; None if `issue` has to be called."""
        entry = self._login_cache.get_entry(principal.user_key, wanted.device_id)
        if entry is None or now >= entry.login.refresh_after:
            return None
        policy = self._policy.policy
        is_decided = entry.decided_for is not None and _is_same(entry.decided_for, (policy, principal, wanted))
        if not is_decided or now >= entry.replaced_at:
            try:
                terms = self._policy.authorize_issue(principal, wanted)
            except DialtoneError:
                return None
            if not _fits(entry.login, wanted, terms, now):
                return None
            entry.replaced_at = replacement_time(entry.login.lease, terms.allowance.max_lease_age)
            entry.set_rtc(terms.allowance.rtc)
            # Differences of a shadow policy are logged for every request, so every request is decided again.
            entry.decided_for = None if policy.has_shadow else (policy, principal, wanted)
        self._login_cache.hits += 1
        return entry

    def record_returned(self, login: Login, seconds: float) -> None:
        """Record that a login from `cached_login` was returned. Not for a required audit, which has to be awaited."""
        self._last_uses.note(login.lease.id)
        if not self._audit.is_repeat(repeat_key(login.lease.id), seconds):
            self._audit.record_nowait(_returned(login, seconds))

    async def refresh(self, principal: Principal, lease_id: str) -> Login:
        """A new login token on the user's lease. Raises LeaseNotFound, LeaseEnded and what `issue` raises."""
        began = self._monotonic()
        self._policy.authorize(principal)
        lease = await self._ledger.find(lease_id)
        if lease is None or lease.user_key != principal.user_key:
            raise LeaseNotFound
        await self._binding.check(principal, lease.device_id)
        if lease.state not in (LeaseState.PENDING, LeaseState.ACTIVE):
            raise LeaseEnded
        wanted = IssueRequest(device_id=lease.device_id, platform=lease.platform)
        terms = self._policy.authorize_issue(principal, wanted)
        login = await self._share(principal, wanted, terms, lease_id)
        self._not_before.check_remembered(principal)
        return await self._record(login.with_rtc(terms.allowance.rtc), began)

    @property
    def in_flight(self) -> int:
        """Number of logins being created."""
        return len(self._flights)

    async def drain(self) -> None:
        """Wait until no login is being created."""
        await self._flights.drain()

    async def _decide(self, principal: Principal, wanted: IssueRequest) -> Login:
        terms = self._policy.authorize_issue(principal, wanted)
        login = await self._find_or_create(principal, wanted, terms)
        # Check again: a logout, for example, may have rejected the token while the request waited for the login.
        self._not_before.check_remembered(principal)
        return login.with_rtc(terms.allowance.rtc)

    async def _find_or_create(self, principal: Principal, wanted: IssueRequest, terms: IssueTerms) -> Login:
        user_key = principal.user_key
        if (login := self._ready_login(user_key, wanted, terms)) is not None:
            return login  # a login that was made with another grant does not fit, because its session differs
        try:
            await self._binding.check(principal, wanted.device_id)
        except LedgerUnavailable:
            login = self._fallback_login(user_key, wanted, terms)
            if login is None or login.lease.session != principal.session:
                raise  # the grant may be bound to another device
            return login
        try:
            return await self._share(principal, wanted, terms)
        except UNAVAILABLE:
            if (login := self._fallback_login(user_key, wanted, terms)) is not None:
                return login
            raise

    async def _share(
        self, principal: Principal, wanted: IssueRequest, terms: IssueTerms, lease_id: str | None = None
    ) -> Login:
        """The login that all concurrent requests with this token for this device share.

        Requests with another token of the user have another flight, because a not-before entry may reject only one of
        the tokens.
        """
        return await self._flights.do(
            (principal.user_key, wanted.device_id),
            (principal, wanted, terms, lease_id),
            lambda: self._create(principal, wanted, terms, lease_id),
        )

    async def _create(
        self, principal: Principal, wanted: IssueRequest, terms: IssueTerms, lease_id: str | None = None
    ) -> Login:
        await self._ensure_outbound(terms.allowance)
        return await self._login_factory.create_login(principal, wanted, terms, lease_id)

    async def _record(self, login: Login, began: float) -> Login:
        """Record the login before it is returned. If a required audit fails, the login stays cached for the retry."""
        self._last_uses.note(login.lease.id)
        seconds = self._monotonic() - began
        if login.source is IssueSource.CACHED and self._audit.is_repeat(repeat_key(login.lease.id), seconds):
            return login
        await self._audit.record(_returned(login, seconds))
        return login

    def _ready_login(self, user_key: UserKey, wanted: IssueRequest, terms: IssueTerms) -> Login | None:
        """The cached login, if it is fresh enough and the request changes nothing about the device. The hot path."""
        login = self._login_cache.get(user_key, wanted.device_id)
        now = self._clock()
        is_ready = login is not None and now < login.refresh_after and _fits(login, wanted, terms, now)
        self._login_cache.hits += is_ready
        self._login_cache.misses += not is_ready
        return login if is_ready else None

    def _fallback_login(self, user_key: UserKey, wanted: IssueRequest, terms: IssueTerms) -> Login | None:
        """While Telnyx or the ledger is unavailable: the device's last login, if it still works.

        Not one of another connection, if the user's connection has to limit the cost of calls.
        """
        login = self._login_cache.get(user_key, wanted.device_id)
        now = self._clock()
        if login is None or wanted.login_method is not LoginMethod.LOGIN_TOKEN:
            return None
        if login.expires_at < now + MIN_FALLBACK_LIFETIME:
            return None
        is_former = login.lease.connection_id != terms.allowance.connection_id
        if is_former and terms.allowance.outbound is not OutboundRequirement.ANY:
            return None
        soon = min(now + RETRY_WHILE_UNAVAILABLE, login.expires_at)
        return replace(login, refresh_after=soon)


def _returned(login: Login, seconds: float) -> Decision:
    token_sha256 = None if login.token is None else login.token.sha256
    return Decision.login_returned(login.lease, login.source, seconds, token_sha256)


def _is_same(question: DecisionInput, other: DecisionInput) -> bool:
    """Compares policy and principal by identity: a token maps to one Principal, and a reload makes a new policy."""
    return question[0] is other[0] and question[1] is other[1] and question[2] == other[2]


def _fits(login: Login, wanted: IssueRequest, terms: IssueTerms, now: datetime) -> bool:
    """Whether the cached login may be returned without reading the ledger.

    A grant without its session has no row, so only the ledger rejects it: it is forged with a leaked key.

    Another replica may have changed the lease a moment ago. So a request that names terms of its own is decided by the
    ledger's row.
    """
    lease = login.lease
    return (
        wanted == IssueRequest(wanted.device_id)
        and wanted.platform is lease.platform
        and lease.connection_id == terms.allowance.connection_id
        and now < replacement_time(lease, terms.allowance.max_lease_age)
        and (terms.session == lease.session or (terms.session is None and lease.issuer not in GRANT_ISSUERS))
    )

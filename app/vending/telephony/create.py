"""Creating a login that is not cached, according to the device's row. Start reading at `LoginFactory.create_login`.

These invariants hold across crashes:

- The intent is committed before Telnyx is called.
- A create with a lost response is looked up by name before another one is tried.
- Only one writer can make each transition in the ledger.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from app.vending.errors import (
    CredentialExpired,
    DialtoneError,
    LeaseConflict,
    LeaseEnded,
    LeaseExists,
    LedgerUnavailable,
    TelnyxError,
    TelnyxForbidden,
    TelnyxNotFound,
    TelnyxRejected,
    TelnyxUnreachable,
)
from app.vending.models import (
    Credential,
    IssueRequest,
    IssueSource,
    LoginMethod,
    LoginToken,
    Principal,
    SipPassword,
    UserKey,
)
from app.vending.policy import IssueTerms
from app.vending.replica import Replica
from app.vending.telephony.deadlines import POLL_SECONDS
from app.vending.telephony.device_limit import DeviceLimit
from app.vending.telephony.durations import is_due_for_renewal, lifetime, refresh_time, replacement_time
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.login_cache import Login, LoginCache
from app.vending.telephony.recover import Recovery
from app.vending.telephony.renew import LeaseRenewer, credential_of

EXPIRY_MARGIN = timedelta(seconds=5)
"""A credential with less than this left counts as expired: an extension might arrive too late."""


class CreateLedger(Protocol):
    """The part of the ledger that creating a login needs. Every method raises LedgerUnavailable."""

    async def live_lease(self, user_key: UserKey, device_id: str) -> Lease | None:
        """The device's PENDING or ACTIVE lease."""

    async def advance(self, before: Lease, after: Lease, principal: Principal | None = None) -> Lease:
        """Write `after` if the row still equals `before`. Raises LeaseConflict if another writer changed it first.

        With a principal, raises TokenRejected if a not-before entry has rejected the token since.
        """


class CreateTelnyx(Protocol):
    """The Telnyx calls that creating a login needs. Every asynchronous method raises TelnyxErrors."""

    def can_create(self, connection_id: str) -> bool:
        """Whether a create on the connection can be expected to succeed now, according to the latest calls."""

    async def create(self, *, connection_id: str, name: str, tag: str, expires_at: datetime) -> Credential: ...

    async def assign(self, credential_id: str, *, tag: str, expires_at: datetime) -> Credential: ...

    async def mint(self, credential_id: str) -> LoginToken: ...

    async def sip_password(self, credential_id: str) -> SipPassword: ...


class LoginFactory:
    """Creates and renews the credentials of devices, and is the only component that mints login tokens."""

    def __init__(
        self,
        *,
        ledger: CreateLedger,
        telnyx: CreateTelnyx,
        recovery: Recovery,
        device_limit: DeviceLimit,
        renewer: LeaseRenewer,
        login_cache: LoginCache,
        replica: Replica,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        jitter: Callable[[], float],
        wake_pool: Callable[[], None],
        on_replaced: Callable[[list[Lease]], Awaitable[None]],
    ) -> None:
        """`on_replaced` completes the end of leases whose credential is too old: audit and deletion at Telnyx."""
        self._ledger = ledger
        self._telnyx = telnyx
        self._recovery = recovery
        self._device_limit = device_limit
        self._renewer = renewer
        self._login_cache = login_cache
        self._naming = replica.naming
        self._timing = replica.timing
        self._replica = replica.id
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._wake_pool = wake_pool
        self._on_replaced = on_replaced

    async def create_login(
        self, principal: Principal, wanted: IssueRequest, terms: IssueTerms, lease_id: str | None = None
    ) -> Login:
        """Retry until the device has a login. After a conflict with another writer, the row is read again.

        With `lease_id`, raises LeaseEnded unless the device's live lease is that one.
        """
        pause, is_retry = POLL_SECONDS, False
        try:
            async with asyncio.timeout(self._timing.flight_seconds):
                while True:
                    with suppress(LeaseConflict, LeaseExists):
                        if (login := await self._attempt(principal, wanted, terms, lease_id, is_retry)) is not None:
                            return login
                    await asyncio.sleep(pause)
                    pause, is_retry = min(pause * 2, POLL_SECONDS * 10), True
        except TimeoutError as error:
            raise TelnyxUnreachable(may_have_happened=True) from error

    async def _attempt(
        self, principal: Principal, wanted: IssueRequest, terms: IssueTerms, lease_id: str | None, is_retry: bool
    ) -> Login | None:
        """One attempt, according to the row's state. None: another replica has claimed the row."""
        lease, is_new = await self._find_or_open(principal, wanted, terms, lease_id, is_retry)
        if is_new:
            return await (
                self._create(lease, wanted) if lease.credential_id is None else self._assign_pooled(lease, wanted)
            )
        now = self._clock()
        if lease.state is LeaseState.ACTIVE:
            if lease.has_expired(now + EXPIRY_MARGIN) or lease.connection_id != terms.allowance.connection_id:
                await self._end(lease, lease.mark_expired(now))
            is_too_old = now >= replacement_time(lease, terms.allowance.max_lease_age)
            if is_too_old and self._telnyx.can_create(lease.connection_id):
                await self._replace(lease)
            return await self._renew(
                lease, principal, wanted, terms, may_reuse=lease_id is None, may_extend=not is_too_old
            )
        if lease.is_claimed_by_other(self._replica, now):
            return None
        if lease.has_expired(now) or lease.connection_id != terms.allowance.connection_id:
            # A credential that a crash left at Telnyx has expired, which is final, or is on a connection that the user
            # may no longer use. The name is not used again.
            await self._end(lease, lease.start_revoking(now))
        claimed = lease.claim(self._replica, now, self._timing.claim, terms.session)
        is_moved = claimed.session != lease.session
        lease = await self._ledger.advance(lease, claimed, principal if is_moved else None)
        return await self._recover(lease, wanted)

    async def _find_or_open(
        self, principal: Principal, wanted: IssueRequest, terms: IssueTerms, lease_id: str | None, is_retry: bool
    ) -> tuple[Lease, bool]:
        """The device's live lease and whether it is new. With `lease_id`, none is opened.

        A retry reads first: replicas that wait for each other must not compete for SQLite's only writer.
        """
        if lease_id is not None or is_retry:
            lease = await self._ledger.live_lease(principal.user_key, wanted.device_id)
            if lease_id is not None and (lease is None or lease.id != lease_id):
                raise LeaseEnded
            if lease is not None:
                return lease, False
        opened = await self._device_limit.open(
            lambda: self._intent(principal.user_key, wanted, terms), principal, terms.allowance
        )
        return opened.lease, opened.is_new

    def _intent(self, user_key: UserKey, wanted: IssueRequest, terms: IssueTerms) -> Lease:
        """The PENDING row that is committed before Telnyx is called."""
        now = self._clock()
        lease_id = self._new_id()
        return Lease(
            id=lease_id,
            issuer=user_key.issuer,
            subject=user_key.subject,
            device_id=wanted.device_id,
            platform=wanted.platform,
            label=wanted.label,
            connection_id=terms.allowance.connection_id,
            credential_name=self._naming.credential_name(lease_id),
            ttl_seconds=int(terms.ttl.total_seconds()),
            state=LeaseState.PENDING,
            version=1,
            created_at=now,
            updated_at=now,
            expires_at=_whole_seconds(now + terms.ttl),
            usable_at=now + self._timing.propagation,
            claimed_by=self._replica,
            claimed_until=now + self._timing.claim,
            attempted_at=now,
            session=terms.session,
        )

    async def _recover(self, lease: Lease, wanted: IssueRequest) -> Login:
        """Continue a PENDING row without an active holder: adopt its credential if one exists, else create it."""
        try:
            credential = await self._recovery.find(lease)
        except DialtoneError:
            await self._release(lease, maybe_created=True)
            raise
        if credential is not None:
            return await self._activate(lease, credential, wanted, was_found=True)
        now = self._clock()
        expires_at = _whole_seconds(now + timedelta(seconds=lease.ttl_seconds))
        lease = await self._ledger.advance(lease, lease.record_attempt(now, expires_at))
        return await self._create(lease, wanted)

    async def _create(self, lease: Lease, wanted: IssueRequest) -> Login:
        """Call Telnyx once. After a lost response, look the name up once, then leave the row to the next caller."""
        try:
            credential = await self._telnyx.create(
                connection_id=lease.connection_id,
                name=lease.credential_name,
                tag=self._naming.tag(lease.user_key),
                expires_at=lease.expires_at,
            )
        except (TelnyxRejected, TelnyxNotFound, TelnyxForbidden):
            with suppress(LeaseConflict, LedgerUnavailable):
                await self._ledger.advance(lease, lease.mark_failed(self._clock()))
            raise
        except TelnyxError as error:
            found = await self._recovery.try_find(lease) if error.may_have_happened else None
            if found is None:
                await self._release(lease, maybe_created=error.may_have_happened)
                raise
            return await self._activate(lease, found, wanted, was_found=True)
        return await self._activate(lease, credential, wanted)

    async def _assign_pooled(self, lease: Lease, wanted: IssueRequest) -> Login:
        """Assign a pooled credential to the device by setting its tag and expiry at Telnyx. It works at once."""
        self._wake_pool()
        try:
            credential = await self._telnyx.assign(
                credential_of(lease), tag=self._naming.tag(lease.user_key), expires_at=lease.expires_at
            )
        except (CredentialExpired, TelnyxNotFound):
            await self._end(lease, lease.start_revoking(self._clock()))
        except TelnyxError:
            await self._release(lease, maybe_created=True)
            raise
        return await self._activate(lease, credential, wanted, pooled_at=lease.usable_at)

    async def _activate(
        self,
        lease: Lease,
        credential: Credential,
        wanted: IssueRequest,
        *,
        was_found: bool = False,
        pooled_at: datetime | None = None,
    ) -> Login:
        """Make the lease ACTIVE with its credential. A pooled credential has been usable since `pooled_at`."""
        now = self._clock()
        usable_at = pooled_at or now + self._timing.propagation
        try:
            lease = await self._ledger.advance(lease, lease.activate(credential, now, usable_at))
        except LeaseConflict:
            await self._recovery.yield_to_winner(lease, credential)
            raise
        if was_found:
            await self._recovery.delete_duplicates(lease)
        source = IssueSource.CREATED if pooled_at is None else IssueSource.POOLED
        return await self._login(lease, wanted.login_method, source)

    async def _renew(
        self,
        lease: Lease,
        principal: Principal,
        wanted: IssueRequest,
        terms: IssueTerms,
        *,
        may_reuse: bool,
        may_extend: bool,
    ) -> Login:
        """Extend the credential in place if due, which keeps the SIP identity, and mint a token.

        With `may_reuse`, returns a fresh cached login of the row's present version instead, if there is one.

        Without `may_extend`, the credential keeps its expiry.
        """
        lease = await self._apply_changes(lease, principal, wanted, terms)
        now = self._clock()
        ttl = timedelta(seconds=lease.ttl_seconds)
        is_extended = may_extend and is_due_for_renewal(lease, ttl, now)
        if is_extended or lease.expires_at > now + ttl:
            try:
                lease = await self._renewer.set_expiry(lease, _whole_seconds(now + ttl))
            except LeaseEnded:
                raise LeaseConflict from None  # the next attempt opens a new lease
        elif may_reuse and wanted.login_method is LoginMethod.LOGIN_TOKEN:
            cached = await self._login_cache.find_current(lease, now)
            if cached is not None:
                return cached
        return await self._login(lease, wanted.login_method, IssueSource.RENEWED)

    async def _apply_changes(
        self, lease: Lease, principal: Principal, wanted: IssueRequest, terms: IssueTerms
    ) -> Lease:
        """Write the terms and the session that the request changes. Raises TokenRejected if that session has ended."""
        label = lease.label if wanted.label is None else wanted.label
        is_same_platform = wanted.platform is lease.platform
        requested = lease.ttl_seconds if wanted.ttl_seconds is None and is_same_platform else wanted.ttl_seconds
        ttl = int(lifetime(terms.allowance.ttl, wanted.platform, requested).total_seconds())
        session = lease.session if terms.session is None else terms.session
        changed = lease.change(self._clock(), label=label, platform=wanted.platform, ttl_seconds=ttl, session=session)
        if replace(changed, version=lease.version, updated_at=lease.updated_at) == lease:
            return lease
        # A lease that got an ended session would outlive it: the logout found the lease with another session.
        is_moved = session != lease.session
        return await self._renewer.change(lease, changed, principal if is_moved else None)

    async def _login(self, lease: Lease, method: LoginMethod, source: IssueSource) -> Login:
        """A login token or SIP password on an ACTIVE lease. Only a token is cached.

        Raises LeaseConflict if the lease has changed or ended in the meantime, because the login has the former terms.
        """
        now = self._clock()
        token = password = None
        try:
            if method is LoginMethod.SIP_PASSWORD:
                password = await self._telnyx.sip_password(credential_of(lease))
                expires_at = lease.expires_at
            else:
                token = await self._telnyx.mint(credential_of(lease))
                expires_at = min(token.expires_at, lease.expires_at)
        except CredentialExpired:
            await self._end(lease, lease.mark_expired(self._clock()))
        except TelnyxNotFound:
            await self._end(lease, lease.mark_lost(self._clock()))
        refresh_after = refresh_time(now, expires_at, self._jitter())
        login = Login(lease, now, expires_at, refresh_after, token=token, password=password, source=source)
        if self._login_cache.is_outdated(lease):
            raise LeaseConflict
        if token is not None:
            await self._login_cache.store(replace(login, source=IssueSource.CACHED))
        return login

    async def _end(self, lease: Lease, ended: Lease) -> NoReturn:
        """End the lease. Raises LeaseConflict so that the caller reads the device's row again."""
        await self._renewer.change(lease, ended)
        raise LeaseConflict

    async def _replace(self, lease: Lease) -> NoReturn:
        """End a lease whose credential is too old. Raises LeaseConflict, so that the device gets a new one.

        The old credential ends first, because a device has one live lease. So this is not done while Telnyx is
        unavailable. The sweeper deletes the old credential at Telnyx.
        """
        ended = await self._renewer.change(lease, lease.start_revoking(self._clock()))
        await self._on_replaced([ended])
        raise LeaseConflict

    async def _release(self, lease: Lease, *, maybe_created: bool) -> None:
        """Release the claim, so that the next caller can continue at once. If that fails too, the claim expires."""
        with suppress(LeaseConflict, LedgerUnavailable):
            await self._ledger.advance(lease, lease.release(self._clock(), maybe_created=maybe_created))


def _whole_seconds(moment: datetime) -> datetime:
    """Round down: Telnyx's documented timestamps have no fraction, and no response may promise more than was sent."""
    return moment.replace(microsecond=0)

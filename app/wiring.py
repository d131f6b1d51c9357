"""Wiring: every part is opened, joined to the others and closed here, and nowhere else."""

import asyncio
import hashlib
import hmac
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from app import __version__
from app.adapters.identity.keysets import FixedKeys, KeySource, Location, RemoteKeys
from app.adapters.identity.verifier import Issuer, TokenVerifier
from app.adapters.ledger.migrating import newest_revision
from app.adapters.ledger.sql import SqlLedger, database_url, open_engine
from app.adapters.outbound import Outbound
from app.adapters.telnyx import TelnyxClient
from app.settings import Settings
from app.vending.at_hand import LoginsAtHand
from app.vending.devices import Devices
from app.vending.errors import DialtoneError
from app.vending.expiry import Expiry
from app.vending.issuing import CredentialIssuer, Timing
from app.vending.naming import Naming
from app.vending.policy import Policy
from app.vending.recovery import Recovery
from app.vending.revoking import Revoker
from app.vending.sweeping import RevocationWatch, Sweeper

LOGINS_AT_HAND = 20_000
"""Devices whose login is kept in memory: about 2 KB each."""

CALLS_A_FLIGHT = 5
"""Telnyx calls that the longest flight makes: create, look, look again, extend, mint."""

CLAIM_MARGIN = timedelta(seconds=3)
"""What a create may take beside its call: two commits on a busy database."""

WATCH_SECONDS = 1.0
SWEEP_SECONDS = 15.0

_log = structlog.get_logger("dialtone.wiring")


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Outside:
    """What the parts take from the world that is not configuration: time and chance. Tests bring their own."""

    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = new_id
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Parts:
    """The service, joined up."""

    clock: Callable[[], datetime]
    verifier: TokenVerifier
    issuer: CredentialIssuer
    revoker: Revoker
    devices: Devices
    sweeper: Sweeper
    check_ledger: Callable[[], Awaitable[None]]
    check_identity: Callable[[], Awaitable[None]]
    check_telnyx: Callable[[], Awaitable[None]]
    running: Callable[[], AbstractAsyncContextManager[None]]
    """For the lifespan: background work goes on inside, and everything is closed behind it."""


def join(settings: Settings, outside: Outside | None = None) -> Parts:
    """All parts, made but idle: nothing connects before `running` is entered or a part is used."""
    outside = outside or Outside()
    clock = outside.clock
    api_key = settings.telnyx_api_key.get_secret_value()
    outbound = Outbound(f"dialtone/{__version__}")
    verifier = TokenVerifier((_issuer(settings, outbound, outside),), clock)
    engine = open_engine(database_url(settings.database_url.get_secret_value()))
    ledger = SqlLedger(engine)
    telnyx = TelnyxClient(
        outbound,
        base_url=settings.telnyx_base_url,
        api_key=api_key,
        clock=clock,
        call_seconds=settings.telnyx_call_seconds,
    )
    policy = Policy(
        connection_id=settings.telnyx_connection_id,
        ttl=settings.ttl,
        required_scopes=settings.required_scopes,
        grants=settings.grants,
        max_devices=settings.max_devices,
    )
    at_hand = LoginsAtHand(LOGINS_AT_HAND)
    recovery = Recovery(ledger, telnyx, clock)
    expiry = Expiry(ledger, telnyx, at_hand, clock)
    issuer = CredentialIssuer(
        policy=policy,
        ledger=ledger,
        carrier=telnyx,
        recovery=recovery,
        expiry=expiry,
        at_hand=at_hand,
        naming=Naming(settings.namespace, _tag_key(settings, api_key)),
        replica=outside.new_id(),
        clock=clock,
        new_id=outside.new_id,
        jitter=outside.jitter,
        timing=Timing(
            patience_seconds=settings.patience_seconds,
            flight_seconds=CALLS_A_FLIGHT * settings.telnyx_call_seconds + CLAIM_MARGIN.total_seconds(),
            claim=timedelta(seconds=settings.telnyx_call_seconds) + CLAIM_MARGIN,
            propagation=timedelta(seconds=settings.propagation_seconds),
        ),
    )
    revoker = Revoker(policy, ledger, recovery, at_hand, clock)
    sweeper = Sweeper(ledger, revoker, at_hand, clock)
    watch = RevocationWatch(ledger, at_hand, clock)
    revision = newest_revision()

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        background = [
            asyncio.create_task(_repeat(WATCH_SECONDS, watch.look)),
            asyncio.create_task(_repeat(SWEEP_SECONDS, sweeper.sweep)),
        ]
        try:
            yield
            await issuer.drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await outbound.__aexit__(None, None, None)
            await engine.dispose()

    return Parts(
        clock=clock,
        verifier=verifier,
        issuer=issuer,
        revoker=revoker,
        devices=Devices(policy, ledger, expiry, at_hand, clock),
        sweeper=sweeper,
        check_ledger=lambda: ledger.check_ready(revision),
        check_identity=verifier.check_ready,
        check_telnyx=lambda: telnyx.check_connection(settings.telnyx_connection_id),
        running=running,
    )


def _issuer(settings: Settings, outbound: Outbound, outside: Outside) -> Issuer:
    fixed = settings.fixed_keys()
    keys: KeySource
    if fixed is not None:
        keys = FixedKeys(fixed)
    else:
        location = Location(settings.issuer, settings.jwks_url)
        keys = RemoteKeys(location, settings.effective_algorithms, outbound, outside.monotonic)
    max_age = settings.max_token_age_seconds
    return Issuer(
        issuer=settings.issuer,
        audiences=settings.audience,
        algorithms=settings.effective_algorithms,
        keys=keys,
        subject_claim=settings.subject_claim,
        scope_claim=settings.scope_claim,
        allows_scope_list=settings.scope_list,
        token_types=settings.token_types,
        leeway=timedelta(seconds=settings.leeway_seconds),
        max_age=None if max_age is None else timedelta(seconds=max_age),
    )


def _tag_key(settings: Settings, api_key: str) -> bytes:
    """The key of the users' tags. Derived from the API key unless given: nothing is ever looked up by a tag of ours."""
    if settings.tag_key is not None:
        return settings.tag_key.get_secret_value().encode()
    return hmac.new(api_key.encode(), b"dialtone tag key", hashlib.sha256).digest()


async def _repeat(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do it every so often, a little out of step with other replicas. Trouble waits for the next time."""
    while True:
        await asyncio.sleep(seconds * (0.75 + random.random() / 2))  # noqa: S311 - pacing, not a secret
        try:
            await work()
        except DialtoneError as error:
            _log.warning("background_work_failed", error=type(error).__name__)
        except Exception:
            _log.exception("background_work_broke")

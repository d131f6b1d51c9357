"""Sources of an issuer's keys: the configuration, or a remote key set that is fetched, cached and refreshed."""

import asyncio
import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.adapters.http_client import ConnectFailed, HttpClient, HttpResponse, ResponseFailed
from app.adapters.identity import key_faults
from app.adapters.identity.key_faults import FetchFailed
from app.adapters.identity.keys import MAX_KID_LENGTH, KeySet, from_document
from app.adapters.identity.unknown_keys import UnknownKeys, WantedKey
from app.vending.errors import IdentityUnavailable, SigningKeyPending
from app.vending.service_status import KeySetStatus

FETCH_SECONDS = 3.0
"""Total deadline of one fetch, discovery included."""

MAX_DOCUMENT_BYTES = 256 * 1024
REFRESH_SECONDS = 300.0
"""A key set older than this is refreshed in the background and stays in use until then. `max-age` takes precedence."""

REFRESH_BOUNDS = (60.0, 3600.0)
"""Bounds in seconds for `max-age`. A header must not keep a withdrawn key valid for a day."""

COOLDOWN_SECONDS = 30.0
"""Minimum time between two fetches that unknown `kid` values cause, whether or not the first succeeded."""

COLD_COOLDOWN_SECONDS = 2.0
"""Minimum time between a failed fetch and the next one while there are no keys at all."""

HARD_LIMIT_SECONDS = 24 * 3600.0
"""Keys whose last successful fetch is older than this are no longer used."""

_log = structlog.get_logger("dialtone.identity")


class KeySource(Protocol):
    """The keys of one issuer."""

    async def current(self) -> KeySet:
        """The keys, fetched first if necessary. Raises IdentityUnavailable if there are none."""

    def cached(self) -> KeySet | None:
        """The keys in memory; None if a fetch is needed first."""

    async def refresh_for(self, wanted: WantedKey) -> KeySet:
        """The keys, fetched because they have no key for a token. Within the cooldown, returns the current keys.

        Raises SigningKeyPending if only a later fetch can tell whether the key exists, IdentityUnavailable if there are
        no keys.
        """

    async def refresh(self) -> bool:
        """Fetch the keys at an operator's request, without a cooldown. Returns True if the fetch succeeded."""

    def status(self, issuer: str) -> KeySetStatus: ...


class StaticKeySource:
    """A PEM key or a shared secret from the configuration."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def current(self) -> KeySet:
        return self._keys

    def cached(self) -> KeySet:
        return self._keys

    async def refresh_for(self, wanted: WantedKey) -> KeySet:
        return self._keys

    async def refresh(self) -> bool:
        return True

    def status(self, issuer: str) -> KeySetStatus:
        return KeySetStatus(issuer, len(self._keys), None)


@dataclass(frozen=True, slots=True)
class KeySetLocation:
    """The URL of a key set, or the issuer to discover it from. Comes from the configuration, never from a token."""

    issuer: str
    algorithms: frozenset[str]
    """Keys for other algorithms are ignored."""
    jwks_url: str | None = None
    discovery_url: str | None = None
    """The discovery document, if it is not at the usual place below the issuer."""
    allows_http: bool = False
    """Whether the key set may be at a private host that has no https."""
    ca_pem: str | None = None
    """The only CA certificates that are trusted for these URLs; None means the system's."""
    uses_proxy: bool = True
    """Whether the egress proxy is used, if there is one."""

    @property
    def discovery(self) -> str:
        """The URL of the discovery document."""
        return self.discovery_url or self.issuer.rstrip("/") + "/.well-known/openid-configuration"

    @property
    def may_use_http(self) -> bool:
        """Whether keys may be fetched from another host without TLS."""
        return self.allows_http and (self.jwks_url is None or self.jwks_url.startswith("http:"))


class RemoteKeySource:
    """A key set behind HTTP. A failed fetch never replaces good keys. At most one fetch runs at a time."""

    def __init__(
        self,
        location: KeySetLocation,
        outbound: HttpClient,
        monotonic: Callable[[], float],
    ) -> None:
        self.location = location
        self._outbound = outbound
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._fetched_at = -float("inf")
        self._failed_at = -float("inf")
        self._refetched_at = -float("inf")
        self._fetching: asyncio.Task[None] | None = None
        self._refresh_seconds = REFRESH_SECONDS
        self._document: dict[str, object] = {}
        self._fetches = 0
        self._failures = 0
        self._last_failure: tuple[str, str] | None = None
        """The reason and the fix. Not the exception, which would keep the response in memory."""
        self._unknown = UnknownKeys()

    async def current(self) -> KeySet:
        if (keys := self.cached()) is not None:
            return keys
        self._keys = None
        if self._monotonic() - self._failed_at > COLD_COOLDOWN_SECONDS:
            await asyncio.shield(self._fetch())
        if self._keys is None:
            raise IdentityUnavailable(retry_after_seconds=COLD_COOLDOWN_SECONDS)
        return self._keys

    def cached(self) -> KeySet | None:
        age = self._monotonic() - self._fetched_at
        if self._keys is None or age > HARD_LIMIT_SECONDS:
            return None
        if age > self._refresh_seconds and self._monotonic() - self._failed_at > COOLDOWN_SECONDS:
            self._fetch()  # in the background: the cached keys are still valid
        return self._keys

    async def refresh_for(self, wanted: WantedKey) -> KeySet:
        self._unknown.add(wanted)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._keys is None or not self._keys.has(*wanted):
            # The fetch in flight may have begun before the key was published.
            if self._fetching is None and self._monotonic() - self._refetched_at > COOLDOWN_SECONDS:
                self._refetched_at = self._monotonic()
                self._fetch()
            if self._fetching is not None:
                await asyncio.shield(self._fetching)
        keys = await self.current()
        if not keys.has(*wanted) and self._unknown.is_pending(wanted):
            cooldown = self._refetched_at + COOLDOWN_SECONDS - self._monotonic()
            raise SigningKeyPending(retry_after_seconds=max(cooldown, 1.0))
        return keys

    async def refresh(self) -> bool:
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # this fetch may have started before the issuer changed its keys
        failures = self._failures
        await asyncio.shield(self._fetch())
        return self._failures == failures

    def status(self, issuer: str) -> KeySetStatus:
        age = None if self._keys is None else self._monotonic() - self._fetched_at
        keys = KeySet(()) if self._keys is None else self._keys
        reason, fix = self._last_failure or (None, None)
        return KeySetStatus(
            issuer,
            len(keys),
            age,
            self._fetches,
            self._failures,
            keys.skipped,
            last_failure=reason,
            fix=fix,
        )

    def _fetch(self) -> asyncio.Task[None]:
        """The fetch in flight, or a new one. The task never raises."""
        if self._fetching is None:
            self._unknown.fetch_started()
            self._fetching = asyncio.create_task(self._fetch_once())
            self._fetching.add_done_callback(self._fetch_finished)
        return self._fetching

    def _fetch_finished(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_once(self) -> None:
        self._fetches += 1
        until = asyncio.get_running_loop().time() + FETCH_SECONDS
        try:
            url = self.location.jwks_url or await self._discover(until)
            document, refresh_seconds = await self._get(url, key_faults.KEY_SET, until)
            # An unchanged document keeps the KeySet object, so that cached verdicts stay valid.
            known = self._keys if document == self._document else None
            keys = known or _keys_of(document, self.location.algorithms)
        except FetchFailed as error:
            self._failures += 1
            self._failed_at = self._monotonic()
            self._last_failure = (str(error), error.fix)
            self._unknown.fetch_failed()
            _log.warning("key_set_fetch_failed", issuer=self.location.issuer, cause=str(error))
            return
        self._keys, self._document, self._fetched_at = keys, document, self._monotonic()
        self._refresh_seconds, self._last_failure = refresh_seconds, None
        self._unknown.fetch_succeeded()
        _log.info("key_set_fetched", issuer=self.location.issuer, keys=len(keys), skipped=len(keys.skipped))

    async def _discover(self, until: float) -> str:
        """The `jwks_uri` of the discovery document."""
        document, _ = await self._get(self.location.discovery, key_faults.DISCOVERY_DOCUMENT, until)
        return key_faults.jwks_uri_of(document, self.location.issuer, allows_http=self.location.allows_http)

    async def _get(self, url: str, what: str, until: float) -> tuple[dict[str, object], float]:
        """A JSON object, and the seconds until it should be fetched again. `until` is the loop's time."""
        answer = await get_document(self._outbound, self.location, url, what, until, MAX_DOCUMENT_BYTES)
        try:
            document = json.loads(answer.body, parse_int=_integer)
        except (ValueError, RecursionError):
            raise key_faults.body_fault(answer.body, url, what) from None
        if not isinstance(document, dict):
            raise key_faults.body_fault(answer.body, url, what, is_json=True)
        return document, _refresh_after(answer.headers.get("cache-control", ""))


async def get_document(
    outbound: HttpClient,
    location: KeySetLocation,
    url: str,
    what: str,
    until: float,
    max_bytes: int,
    *,
    absent: Container[int] = (),
) -> HttpResponse:
    """The response with status 200, or with a status of `absent`. `until` is the loop's time. Raises FetchFailed."""
    seconds = until - asyncio.get_running_loop().time()
    try:
        answer = await outbound.send("GET", url, deadline_seconds=seconds, max_bytes=max_bytes)
    except (ConnectFailed, ResponseFailed) as error:
        raise key_faults.request_fault(error, url, has_own_ca=location.ca_pem is not None) from None
    if answer.status != 200 and answer.status not in absent:
        raise key_faults.status_fault(answer, url, what)
    return answer


def _integer(text: str) -> int | str:
    """Python refuses to convert very long integers. One in a key must not make the other keys unreadable."""
    return int(text) if len(text) <= MAX_KID_LENGTH else text


def _keys_of(document: dict[str, object], algorithms: frozenset[str]) -> KeySet:
    try:
        keys = from_document(document, algorithms)
    except ValueError as error:
        raise key_faults.document_fault(document, error) from None
    if not len(keys):
        raise key_faults.keys_fault(document, keys, algorithms)
    return keys


def _refresh_after(cache_control: str) -> float:
    """Seconds until the next refresh, from `Cache-Control` (RFC 9111 section 5.2.2) within REFRESH_BOUNDS."""
    shortest, longest = REFRESH_BOUNDS
    directives = [directive.strip().lower() for directive in cache_control.split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return shortest
    for directive in directives:
        name, _, value = directive.partition("=")
        if name == "max-age" and value.strip('"').isdecimal():
            return min(max(float(value.strip('"')), shortest), longest)
    return REFRESH_SECONDS

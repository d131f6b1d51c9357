"""Sources of an issuer's keys: the configuration, or a remote key set that is fetched, cached and refreshed."""

import asyncio
import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from app.adapters.http_client import ConnectFailed, HttpClient, ResponseFailed
from app.adapters.identity.keys import KeySet, from_jwks
from app.vending.errors import IdentityUnavailable
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

    async def refresh_for_unknown_kid(self) -> KeySet:
        """Fetch the keys because of an unknown `kid`. Within the cooldown, returns the current keys."""

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

    async def refresh_for_unknown_kid(self) -> KeySet:
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

    async def refresh_for_unknown_kid(self) -> KeySet:
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        elif self._monotonic() - self._refetched_at > COOLDOWN_SECONDS:
            self._refetched_at = self._monotonic()
            await asyncio.shield(self._fetch())
        return await self.current()

    async def refresh(self) -> bool:
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # this fetch may have started before the issuer changed its keys
        failures = self._failures
        await asyncio.shield(self._fetch())
        return self._failures == failures

    def status(self, issuer: str) -> KeySetStatus:
        age = None if self._keys is None else self._monotonic() - self._fetched_at
        return KeySetStatus(issuer, 0 if self._keys is None else len(self._keys), age, self._fetches, self._failures)

    def _fetch(self) -> asyncio.Task[None]:
        """The fetch in flight, or a new one. The task never raises."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_once())
            self._fetching.add_done_callback(self._fetch_finished)
        return self._fetching

    def _fetch_finished(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_once(self) -> None:
        self._fetches += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                url = self.location.jwks_url or await self._discover()
                document, refresh_seconds = await self._get(url)
            # An unchanged document keeps the KeySet object, so that cached verdicts stay valid.
            is_known = self._keys is not None and document == self._document
            keys = self._keys if is_known else from_jwks(document, self.location.algorithms)
            if keys is None or not len(keys):
                raise ValueError("no usable key")
        except (ConnectFailed, ResponseFailed, ValueError, TimeoutError, RecursionError) as error:
            self._failures += 1
            self._failed_at = self._monotonic()
            _log.warning("key_set_fetch_failed", issuer=self.location.issuer, cause=type(error).__name__)
            return
        self._keys, self._document, self._fetched_at = keys, document, self._monotonic()
        self._refresh_seconds = refresh_seconds
        _log.info("key_set_fetched", issuer=self.location.issuer, keys=len(keys))

    async def _discover(self) -> str:
        """The `jwks_uri` of the discovery document, which must name the configured issuer.

        Source: OpenID Connect Discovery 1.0 section 4.
        """
        document, _ = await self._get(self.location.issuer.rstrip("/") + "/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != self.location.issuer or not isinstance(url, str) or not is_safe_url(url):
            raise ValueError("discovery document of another issuer, or without a safe jwks_uri")
        return url

    async def _get(self, url: str) -> tuple[dict[str, object], float]:
        """A JSON object, and the seconds until it should be fetched again."""
        answer = await self._outbound.send("GET", url, deadline_seconds=FETCH_SECONDS, max_bytes=MAX_DOCUMENT_BYTES)
        document = json.loads(answer.body) if answer.status == 200 else None
        if not isinstance(document, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 - one kind of failure for the caller
        return document, _refresh_after(answer.headers.get("cache-control", ""))


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


def is_safe_url(url: str) -> bool:
    """True for https, or http to this machine, without credentials and without a fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_plain = parts.username is None and parts.password is None and not parts.fragment
        return bool(host) and is_plain and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

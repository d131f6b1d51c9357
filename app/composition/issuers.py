"""Builds the issuers of the configuration with the sources of their signing keys."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from app import __version__
from app.adapters.http_client import HttpClient
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import KeySetLocation, KeySource, RemoteKeySource, StaticKeySource
from app.adapters.identity.keys import KeySet
from app.adapters.identity.verifier import TokenVerifier
from app.config.file import IssuerTable, ResolvedConfig
from app.config.settings import Settings


@asynccontextmanager
async def open_verifier(settings: Settings) -> AsyncIterator[TokenVerifier]:
    """A verifier without a ledger, and therefore without not-before, for commands that examine a token."""
    async with HttpClient(f"dialtone/{__version__}") as http:
        yield TokenVerifier(
            KeySetRegistry(http, time.monotonic).build_issuers(settings.identity()), lambda: datetime.now(UTC)
        )


class KeySetRegistry:
    """The remote key sets. A reload keeps the keys of an issuer whose key location did not change."""

    def __init__(self, http: HttpClient, monotonic: Callable[[], float]) -> None:
        self._http = http
        self._monotonic = monotonic
        self._known: dict[KeySetLocation, RemoteKeySource] = {}

    def build_issuers(self, resolved: ResolvedConfig) -> list[Issuer]:
        kept = resolved.policy.claims()
        found = [_issuer(table, self._source(table, fixed), kept) for table, fixed in resolved.issuers]
        in_use = {issuer.keys for issuer in found}
        self._known = {location: keys for location, keys in self._known.items() if keys in in_use}
        return found

    def _source(self, table: IssuerTable, fixed: KeySet | None) -> KeySource:
        if fixed is not None:
            return StaticKeySource(fixed)
        location = KeySetLocation(table.issuer, table.effective_algorithms, table.jwks_url)
        return self._known.setdefault(location, RemoteKeySource(location, self._http, self._monotonic))


def _issuer(table: IssuerTable, keys: KeySource, kept_claims: frozenset[str]) -> Issuer:
    max_age = table.max_token_age_seconds
    return Issuer(
        issuer=table.issuer,
        audiences=table.audiences,
        algorithms=table.effective_algorithms,
        keys=keys,
        subject_claim=table.subject_claim,
        scope_claim=table.scope_claim,
        allows_scope_list=table.scope_list,
        token_types=table.token_types,
        leeway=timedelta(seconds=table.leeway_seconds),
        max_age=None if max_age is None else timedelta(seconds=max_age),
        logout_audiences=table.logout_audiences,
        kept_claims=kept_claims,
    )

"""Builds the issuers of the configuration with the sources of their signing keys."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from app import __version__
from app.adapters.http_client import HttpClients
from app.adapters.identity import load_balancer
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import KeySetLocation, KeySource, RemoteKeySource, StaticKeySource
from app.adapters.identity.keys import KeySet
from app.adapters.identity.load_balancer_keys import LoadBalancerKeySource
from app.adapters.identity.sign_in import OperatorSignIn
from app.adapters.identity.verifier import TokenVerifier
from app.config.file import IssuerTable, ResolvedConfig
from app.config.settings import Settings
from app.config.tables import conditions
from app.config.token_claims import TokenKind
from app.vending.operators.sign_in import SignInClient

_log = structlog.get_logger("dialtone.identity")


@asynccontextmanager
async def open_verifier(settings: Settings) -> AsyncIterator[TokenVerifier]:
    """A verifier without a ledger, and therefore without not-before, for commands that examine a token."""
    async with HttpClients(f"dialtone/{__version__}", settings.proxy_url) as clients:
        key_sets = KeySetRegistry(clients, time.monotonic)
        yield TokenVerifier(key_sets.build_issuers(settings.identity()), lambda: datetime.now(UTC))


class KeySetRegistry:
    """The remote key sets. A reload keeps the keys of an issuer whose key location did not change."""

    def __init__(self, clients: HttpClients, monotonic: Callable[[], float]) -> None:
        self._clients = clients
        self._monotonic = monotonic
        self._known: dict[KeySetLocation, KeySource] = {}

    def build_issuers(self, resolved: ResolvedConfig) -> list[Issuer]:
        """The issuers of a configuration, which may not be applied: no known key set is forgotten."""
        for table, _ in resolved.issuers:
            if table.tenants == "any":
                _log.warning("every_tenant_accepted", issuer=table.issuer)
        kept = resolved.policy.claims()
        found = [
            _issuer(table, self._source(table, fixed, ca_pem), kept)
            for (table, fixed), ca_pem in zip(resolved.issuers, resolved.ca_pems, strict=True)
        ]
        return found if resolved.grant_keys is None else found + resolved.grant_keys.issuers(kept)

    def forget_others(self, issuers: Iterable[Issuer]) -> None:
        """Forget the key sets that these issuers do not use."""
        in_use = {issuer.keys for issuer in issuers}
        self._known = {location: keys for location, keys in self._known.items() if keys in in_use}

    def log_plain_http(self) -> None:
        """Warn of key sets that are fetched without TLS."""
        for location in self._known:
            if location.may_use_http:
                note = "allow_http is set: a network between this machine and the host can replace the keys"
                _log.warning("plain_http_key_set", issuer=location.issuer, note=note)

    def use_sign_in(self, resolved: ResolvedConfig, sign_in: OperatorSignIn) -> None:
        """Let operators sign in with the issuer that has a client for them."""
        for (table, _), ca_pem in zip(resolved.issuers, resolved.ca_pems, strict=True):
            if (client := _sign_in_client(table)) is not None:
                http = self._clients.get(ca_pem, uses_proxy=table.use_proxy)
                sign_in.use(client, _location(table, ca_pem), http)
                return
        sign_in.use(None, None, None)

    def _source(self, table: IssuerTable, fixed: KeySet | None, ca_pem: str | None) -> KeySource:
        if fixed is not None:
            return StaticKeySource(fixed)
        location = _location(table, ca_pem)
        if location not in self._known:
            client = self._clients.get(ca_pem, uses_proxy=table.use_proxy)
            kind = RemoteKeySource if table.signer is None else LoadBalancerKeySource
            self._known[location] = kind(location, client, self._monotonic)
        return self._known[location]


def _location(table: IssuerTable, ca_pem: str | None) -> KeySetLocation:
    return KeySetLocation(
        issuer=table.issuer,
        algorithms=table.effective_algorithms,
        jwks_url=table.jwks_url or (None if table.signer is None else load_balancer.keys_url(table.signer)),
        discovery_url=table.discovery_url,
        allows_http=table.allow_http,
        ca_pem=ca_pem,
        uses_proxy=table.use_proxy,
    )


def _sign_in_client(table: IssuerTable) -> SignInClient | None:
    if table.ops_client_id is None:
        return None
    uses_id_token = table.token_kind is TokenKind.ID
    return SignInClient(
        issuer=table.issuer,
        client_id=table.ops_client_id,
        scopes=tuple(sorted(table.ops_scopes, key=lambda scope: (scope != "openid", scope))),
        audience=next(iter(table.audiences)) if len(table.audiences) == 1 and not uses_id_token else None,
        uses_id_token=uses_id_token,
    )


def _issuer(table: IssuerTable, keys: KeySource, kept_claims: frozenset[str]) -> Issuer:
    max_age = table.max_token_age_seconds
    return Issuer(
        issuer=table.issuer,
        audiences=table.audiences,
        algorithms=table.effective_algorithms,
        keys=keys,
        audience_claims=table.audience_claims,
        required_claims=conditions(table.required_claims),
        subject_claim=table.subject_claim,
        subject_type=table.subject_type,
        scope_claim=table.scope_claim,
        token_types=table.effective_token_types,
        allowed_foreign_claims=table.allowed_id_token_claims,
        tenants=table.tenants,
        takes_tokens_without_iss=table.takes_tokens_without_iss,
        max_token_length=table.max_token_bytes,
        leeway=timedelta(seconds=table.leeway_seconds),
        max_age=None if max_age is None else timedelta(seconds=max_age),
        logout_audiences=table.logout_audiences,
        kept_claims=kept_claims,
        header=None if table.header is None else table.header.lower(),
        signer=table.signer,
    )

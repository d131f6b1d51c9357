"""The configured issuers, and which of them a token belongs to. A URL from a token is never fetched."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from app.adapters.identity import expectations
from app.adapters.identity.claims import Issuer
from app.adapters.identity.compact_jws import MAX_TOKEN_LENGTH
from app.vending.errors import NOTHING_EXPECTED, TokenRejected


class _KnownIssuer(NamedTuple):
    """An issuer that tokens may have."""

    iss: str
    """The issuer that users of these tokens belong to."""
    issuer: Issuer
    tenant: str | None = None
    """The tenant id that the token must name, if the issuer is a template."""


class Issuers:
    """Finds the issuer of a token. Iterates over the configured issuers."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        given = list(self)
        self._by_iss = {known.iss: known for issuer in given for known in _listed(issuer)}
        self._of_any_tenant = [issuer for issuer in given if issuer.tenants == "any"]
        self._without_iss = next((issuer for issuer in given if issuer.takes_tokens_without_iss), None)
        self._by_header = {issuer.header: issuer for issuer in given if issuer.header is not None}
        self.token_headers = frozenset(name.encode("ascii") for name in self._by_header)
        """Request headers that contain tokens of one issuer each, in lower case. `Authorization` is not among them."""
        self.max_token_length = max((issuer.max_token_length for issuer in given), default=MAX_TOKEN_LENGTH)
        self.expectations = expectations.of_all(given, self.max_token_length)
        """The requirements for tokens whose issuer is not known, by reason code."""
        # Computed once, because anonymous callers can cause any number of refusals:
        self._details = {reason: expected.as_details(None) for reason, expected in self.expectations.items()}
        self._details_of = {
            issuer.issuer: self._details | _details(issuer, expectations.of_issuer(issuer)) for issuer in given
        }
        self._logout_details_of = {
            issuer.issuer: self._details_of[issuer.issuer] | _details(issuer, expectations.of_logout_tokens(issuer))
            for issuer in given
        }

    def __iter__(self) -> Iterator[Issuer]:
        return iter(self._issuers.values())

    def get(self, name: str) -> Issuer | None:
        """The issuer that is configured under this name, which may be a template."""
        return self._issuers.get(name)

    def of(self, claims: dict[str, Any], *, is_access_token: bool) -> tuple[str, Issuer]:
        """The `iss` of a token and the configured issuer that it belongs to. Raises TokenRejected."""
        iss = claims.get("iss")
        if not isinstance(iss, str):
            if "iss" in claims or self._without_iss is None or not is_access_token:
                raise TokenRejected("unknown_issuer")
            return self._without_iss.issuer, self._without_iss
        known = self._by_iss.get(iss) or self._of_any(iss)
        if known is None:
            raise TokenRejected("unknown_issuer")
        issuer = known.issuer
        if issuer.template is not None and claims.get(issuer.template.claim) != known.tenant:
            raise TokenRejected("wrong_tenant")
        return known.iss, issuer

    def describe(self, refusal: TokenRejected, issuer: Issuer | None, *, is_logout_token: bool = False) -> None:
        """Add the requirement of the configuration, unless the error has one. `issuer` is None if it is unknown."""
        if refusal.expected is not NOTHING_EXPECTED:
            return
        details = self._details
        if issuer is not None:
            details = (self._logout_details_of if is_logout_token else self._details_of).get(issuer.issuer, details)
        refusal.expected = details.get(refusal.reason, NOTHING_EXPECTED)

    def of_header(self, header: str) -> Issuer | None:
        """The issuer whose tokens are in this request header."""
        return self._by_header.get(header)

    def accepts(self, iss: str) -> bool:
        """Whether tokens may have this `iss`: a configured issuer, or one of a tenant."""
        return iss in self._by_iss or self._of_any(iss) is not None

    def _of_any(self, iss: str) -> _KnownIssuer | None:
        """The issuer that accepts every tenant, if one of its tenants has this `iss`."""
        for issuer in self._of_any_tenant:
            if issuer.template is not None and (tenant := issuer.template.tenant_of(iss)) is not None:
                return _KnownIssuer(iss, issuer, tenant)
        return None


def _details(issuer: Issuer, expected: dict[str, expectations.Expectation]) -> dict[str, Mapping[str, str]]:
    return {reason: expectation.as_details(issuer.issuer) for reason, expectation in expected.items()}


def _listed(issuer: Issuer) -> list[_KnownIssuer]:
    """The issuers that are known in advance: none for a template that any tenant fills."""
    if issuer.template is None:
        return [_KnownIssuer(issuer.issuer, issuer)]
    tenants = issuer.tenants if isinstance(issuer.tenants, frozenset) else frozenset[str]()
    return [_KnownIssuer(issuer.template.filled(tenant), issuer, tenant) for tenant in tenants]

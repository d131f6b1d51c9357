"""The issuers whose users an operator may see and change. Every operation of the operators' API is limited by it."""

from dataclasses import dataclass

from app.vending.errors import AccessDenied, IssuerNotFound


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant of an issuer template."""

    issuer: str
    """The `iss` of the tenant's tokens."""
    template: str
    """The issuer template, as in the configuration."""
    claim: str
    """The claim with the tenant id."""
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Visibility:
    """All issuers, or those that a policy rule names."""

    issuers: frozenset[str] | None = None
    """As tokens name them, and as the configuration names them: an issuer template and each `iss` that fills it.

    None means all. It also allows the operations that concern the whole service.
    """
    tenants: frozenset[Tenant] = frozenset()
    """The tenants among `issuers` whose template is not among them."""

    def includes(self, issuer: str) -> bool:
        return self.issuers is None or issuer in self.issuers

    def includes_some_of(self, configured_issuer: str) -> bool:
        """Whether the issuer, or a tenant of this issuer template, is visible."""
        return self.includes(configured_issuer) or any(one.template == configured_issuer for one in self.tenants)

    def __and__(self, other: "Visibility") -> "Visibility":
        """The issuers that both see."""
        if self.issuers is None or other.issuers is None:
            return other if self.issuers is None else self
        issuers = self.issuers & other.issuers
        tenants = (one for one in self.tenants | other.tenants if one.issuer in issuers)
        return Visibility(issuers, frozenset(one for one in tenants if one.template not in issuers))

    def check_issuer(self, issuer: str) -> None:
        """Raises IssuerNotFound for an issuer outside, as for an issuer that is not configured."""
        if not self.includes(issuer):
            raise IssuerNotFound

    def check_all(self) -> None:
        """Raises AccessDenied unless all issuers are visible. For operations that concern the whole service."""
        if self.issuers is not None:
            raise AccessDenied


ALL_ISSUERS = Visibility()

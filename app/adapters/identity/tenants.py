"""Issuer templates: one identity provider that has an issuer for each tenant, such as Entra ID."""

import re
from dataclasses import dataclass
from typing import Literal, Self

Tenants = frozenset[str] | Literal["any"]
"""The accepted tenant ids. `any` accepts every tenant of the provider."""

TENANT_ID = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
"""Tenant ids contain no `/`, so a filled template has the path of the template."""

_TENANT_ID = re.compile(TENANT_ID)
_TEMPLATE = re.compile(r"([^{}]*)\{([A-Za-z][A-Za-z0-9_]*)\}([^{}]*)")


@dataclass(frozen=True, slots=True)
class IssuerTemplate:
    """An issuer with one claim in braces: `https://login.example.com/{tid}/v2.0`."""

    prefix: str
    claim: str
    """The claim with the tenant id."""
    suffix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError unless the text has exactly one name in braces."""
        found = _TEMPLATE.fullmatch(text)
        if found is None:
            raise ValueError("not one claim in braces")
        return cls(*found.groups())

    def filled(self, tenant: str) -> str:
        return f"{self.prefix}{tenant}{self.suffix}"

    def tenant_of(self, issuer: str) -> str | None:
        """The tenant id that fills the template to exactly this issuer; None if no valid one does."""
        if not issuer.startswith(self.prefix) or not issuer.endswith(self.suffix):
            return None
        tenant = issuer[len(self.prefix) : len(issuer) - len(self.suffix)]
        return tenant if _TENANT_ID.fullmatch(tenant) and self.filled(tenant) == issuer else None

    def overlaps(self, other: "IssuerTemplate") -> bool:
        """Whether an issuer may fill both templates."""
        prefixes, suffixes = (self.prefix, other.prefix), (self.suffix, other.suffix)
        return max(prefixes, key=len).startswith(min(prefixes, key=len)) and max(suffixes, key=len).endswith(
            min(suffixes, key=len)
        )


def is_issued_by(issuer: str, iss: str) -> bool:
    """Whether `issuer` is `iss`, or a template that `iss` fills. Entra's keys name `{tenantid}`, its tokens `tid`."""
    if "{" not in issuer:
        return issuer == iss
    try:
        return IssuerTemplate.parse(issuer).tenant_of(iss) is not None
    except ValueError:
        return False

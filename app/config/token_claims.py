"""The settings of an issuer's tokens in dialtone.toml: issuer, audience, user, and what else the claims must say.

The defaults are strict. Each exception is a setting of one issuer, and `check` rejects combinations that would accept
more tokens than the operator means.
"""

import base64
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator

from app.adapters.identity.claims import ID_TOKEN_CLAIMS, SubjectType
from app.adapters.identity.compact_jws import MAX_CONFIGURABLE_TOKEN_LENGTH, MAX_TOKEN_LENGTH
from app.adapters.identity.tenants import TENANT_ID, IssuerTemplate, Tenants
from app.config.providers import ProviderTable
from app.config.tables import CLAIM_KINDS, ClaimName, ClaimTables, FieldError, Words
from app.config.text_cleaning import checked

_ENTRA_ALIAS = re.compile(r"https://login\.microsoftonline\.com/(common|organizations|consumers)/")
"""Entra publishes discovery documents under these names, but no token has them in its issuer."""

_ENTRA_TEMPLATE = re.compile(r"https://(login\.microsoftonline\.com|sts\.windows\.net)/\{(?!tid\})")
"""Entra's own documents write `{tenantid}`, but the claim in its tokens is `tid`."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")


class TokenKind(StrEnum):
    ACCESS = "access"
    ID = "id"


class SecretEncoding(StrEnum):
    UTF8 = "utf-8"
    BASE64 = "base64"
    BASE64URL = "base64url"


def _require_provider_or_issuer(schema: dict[str, Any]) -> None:
    """A provider brings the issuer and often the audience, so a table with a provider needs neither."""
    schema.pop("required", None)
    alternatives = (["provider"], ["issuer", "audiences"], ["issuer", "required_claims"])
    schema["anyOf"] = [{"required": names} for names in alternatives]


class TokenTable(ProviderTable):
    """The part of an issuer's table that says what its tokens contain."""

    model_config = ConfigDict(json_schema_extra=_require_provider_or_issuer)

    issuer: Annotated[str, AfterValidator(checked)] = Field(
        min_length=1,
        max_length=2048,
        description="The exact `iss` of its tokens. With `tenants`, a template with the claim that fills it in braces.",
    )
    tenants: Literal["any"] | frozenset[Annotated[str, Field(pattern=rf"^{TENANT_ID}$")]] | None = Field(
        None, description='Accepted tenant IDs of an issuer template. "any" accepts every tenant of the provider.'
    )
    takes_tokens_without_iss: bool = Field(
        False, description="Accept tokens without `iss` as tokens of this issuer. Only one issuer may do so."
    )
    audiences: Words = Field(
        frozenset(),
        description="Accepted audiences. A token needs one of them. Without any, required_claims is required, and "
        "tokens with an audience are rejected.",
    )
    audience_claims: tuple[ClaimName, ...] = Field(
        ("aud",), min_length=1, description="Claims with the audience. The first that the token has must match."
    )
    required_claims: ClaimTables = Field(
        default_factory=dict, description=f"Conditions that every token must meet: {CLAIM_KINDS}"
    )
    token_kind: TokenKind = Field(
        TokenKind.ACCESS, description="`id`: accept ID tokens. It requires audiences and required_claims."
    )
    allowed_foreign_claims: frozenset[Literal["nonce", "at_hash"]] = Field(
        frozenset(), description="Claims of ID tokens that the issuer's access tokens have too."
    )
    subject_claim: ClaimName = Field("sub", description="The claim that names the user.")
    subject_type: SubjectType = Field(
        SubjectType.TEXT, description="`integer`: the claim is a number from 0 to 2^63-1, and never text."
    )
    scope_claim: ClaimName = Field("scope", description="The claim with the scopes: text, or a list.")
    secret_encoding: SecretEncoding = Field(SecretEncoding.UTF8, description="How the shared secret is written.")
    max_token_bytes: int = Field(
        MAX_TOKEN_LENGTH,
        strict=True,
        ge=1024,
        le=MAX_CONFIGURABLE_TOKEN_LENGTH,
        description="Maximum length of a token.",
    )

    @field_validator("tenants", mode="before")
    @classmethod
    def _check_tenants(cls, value: Any) -> Any:
        """Report one fault. pydantic would report one for every branch of the union."""
        if value is None or value == "any":
            return value
        is_list = isinstance(value, list | tuple | frozenset) and len(value) > 0
        if not is_list or not all(isinstance(item, str) and re.fullmatch(TENANT_ID, item) for item in value):
            raise ValueError('must be a list of tenant IDs, or "any" for every tenant of the provider')
        if "any" in value:
            raise ValueError('"any" is not a tenant ID; write tenants = "any" to accept every tenant of the provider')
        return value

    @property
    def allowed_id_token_claims(self) -> frozenset[str]:
        return ID_TOKEN_CLAIMS if self.token_kind is TokenKind.ID else frozenset(self.allowed_foreign_claims)


def check(table: TokenTable) -> None:
    """Raises FieldError for a table whose settings contradict each other."""
    issuer = table.issuer
    if not table.audiences and not table.required_claims:
        raise FieldError("audiences", "is required")
    if table.token_kind is TokenKind.ID and not (table.audiences and table.required_claims):
        missing = "required_claims" if table.audiences else "audiences"
        raise FieldError("token_kind", f"ID tokens of {issuer} require {missing}; set it, or use access tokens")
    if table.token_kind is TokenKind.ID and table.allowed_foreign_claims:
        raise FieldError(
            "allowed_foreign_claims", f'has no effect, because {issuer} has token_kind = "id"; remove one of the two'
        )
    if table.tenants is None and ("{" in issuer or "}" in issuer):
        raise FieldError("issuer", f"{issuer} is a template; set tenants, or write the issuer of one tenant")
    if _ENTRA_ALIAS.match(issuer):
        raise FieldError("issuer", f"no token has the issuer {issuer}; write the tenant ID, or {{tid}} and set tenants")
    if _ENTRA_TEMPLATE.match(issuer):
        raise FieldError("issuer", f"{issuer} must name the claim that Entra's tokens have; write {{tid}}")
    if table.tenants is not None:
        try:
            IssuerTemplate.parse(issuer)
        except ValueError:
            raise FieldError(
                "tenants", f"{issuer} is not a template; write one claim in braces, such as {{tid}}"
            ) from None
        if table.takes_tokens_without_iss:
            raise FieldError(
                "takes_tokens_without_iss", f"{issuer} is a template, which `iss` has to fill; remove the setting"
            )


def check_all(tables: Sequence[TokenTable]) -> None:
    """Raises FieldError if a token could belong to two of the issuers, or a rule to another issuer than it names."""
    without_iss = [table.issuer for table in tables if table.takes_tokens_without_iss]
    if len(without_iss) > 1:
        raise FieldError(
            "issuers",
            f"{without_iss[0]} and {without_iss[1]} both have takes_tokens_without_iss; keep it at one issuer",
        )
    names = [table.issuer for table in tables]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        hint = (
            "list all tenants at one of them, or write the issuer of one tenant"
            if "{" in repeated
            else "keep one of them"
        )
        raise FieldError("issuers", f"two issuers have the same issuer {repeated}; {hint}")
    owners: dict[str, str] = {}
    of_any_tenant: list[tuple[IssuerTemplate, str]] = []
    for table in tables:
        if table.tenants == "any":
            template = IssuerTemplate.parse(table.issuer)
            for other, owner in of_any_tenant:
                if template.overlaps(other):
                    raise FieldError("issuers", f"{owner} and {table.issuer} accept the same issuers; keep one")
            of_any_tenant.append((template, table.issuer))
        for iss in issuers_of(table.issuer, table.tenants):
            if iss in owners:
                raise FieldError(
                    "issuers", f"{owners[iss]} and {table.issuer} both accept {iss}; remove it from one of them"
                )
            owners[iss] = table.issuer


def issuers_of(issuer: str, tenants: Tenants | None) -> list[str]:
    """The `iss` of its users' tokens, as far as they are known: none for a template that any tenant fills."""
    if tenants is None:
        return [issuer]
    return [] if tenants == "any" else [IssuerTemplate.parse(issuer).filled(tenant) for tenant in sorted(tenants)]


def secret_bytes(secret: str, encoding: SecretEncoding) -> bytes:
    """The decoded secret. Padding may be omitted. Raises ValueError if the text is not in the encoding."""
    if encoding is SecretEncoding.UTF8:
        return secret.encode()
    alphabet, pattern = (b"+/", _BASE64) if encoding is SecretEncoding.BASE64 else (b"-_", _BASE64URL)
    secret = "".join(secret.splitlines())  # the command base64 writes lines of 76 characters
    unpadded = secret.rstrip("=")
    if not pattern.fullmatch(secret) or len(unpadded) % 4 == 1:
        raise ValueError(f'is not {encoding.value}; correct it, or set secret_encoding = "utf-8" if it is plain text')
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), altchars=alphabet)

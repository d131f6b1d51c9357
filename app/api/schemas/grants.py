"""Grants: a backend vouches for a user or a guest."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.schemas.fields import ORIGIN, Instant, IssuerName, ResourceId, StrictRequest, Subject
from app.vending.grants.mint import GrantRequest, MintedGrant
from app.vending.grants.models import GrantKind
from app.vending.grants.revoke import GrantRevocation
from app.vending.models import UserKey

DEFAULT_PORTS = {"https": ":443", "http": ":80"}
"""Ports that browsers leave out of `Origin` (RFC 6454 section 6.1)."""

Origin = Annotated[str, StringConstraints(max_length=255, pattern=ORIGIN)]
GrantTtlSeconds = Annotated[int, Field(ge=1, le=3600)]


class GrantMintRequest(StrictRequest):
    """The user or guest that the backend vouches for, and the limits of the grant."""

    kind: GrantKind = Field(
        strict=False,
        description="`user`: a user whom the backend has authenticated. `guest`: a caller without an account.",
    )
    subject: Subject | None = Field(
        None,
        description="The backend's name for the user or guest. Required for a user. Default for a guest: a new name.",
        examples=["customer-4711"],
    )
    origin: Origin | None = Field(
        None,
        description="The only origin whose pages may use the grant: every request must have it in `Origin`.",
        examples=["https://app.example.com"],
    )
    ttl_seconds: GrantTtlSeconds | None = Field(
        None, description="Lifetime of the grant, at most DIALTONE_GRANT_TTL_SECONDS, which is the default too."
    )

    @model_validator(mode="after")
    def _check_subject(self) -> Self:
        if self.kind is GrantKind.USER and self.subject is None:
            raise ValueError("subject is required for a user.")
        if self.subject is not None and not self.subject.isprintable():
            raise ValueError("subject must have printable characters only: tokens have no others.")
        return self

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        scheme, _, host = (self.origin or "").partition("://")
        if host.endswith((":", DEFAULT_PORTS.get(scheme, ":"))):
            raise ValueError("origin must be as browsers send it, without the default port.")
        return self

    def to_grant_request(self) -> GrantRequest:
        return GrantRequest(self.kind, self.subject, self.origin, self.ttl_seconds)


class MintedGrantInfo(BaseModel):
    """A grant. Give `token` to the user's or guest's client, which sends it as its access token."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f0c2d9be1a4483fb1b7f4b6b0e2a9d3",
                    "token": "eyJhbGciOiJFUzI1NiIsInR5cCI6ImdyYW50K2p3dCJ9.e30.c2lnbmF0dXJl",
                    "kind": "user",
                    "issuer": "dialtone:users",
                    "subject": "customer-4711",
                    "origin": "https://app.example.com",
                    "expires_at": "2026-11-23T09:35:00.000Z",
                }
            ]
        }
    )

    id: str
    token: str = Field(repr=False)
    kind: GrantKind
    issuer: str = Field(description="The issuer of the user or guest, for the operators' API.")
    subject: str
    origin: str | None
    expires_at: Instant

    @classmethod
    def from_minted(cls, minted: MintedGrant) -> Self:
        grant = minted.grant
        return cls(
            id=grant.id,
            token=minted.token,
            kind=grant.kind,
            issuer=grant.kind.issuer,
            subject=grant.subject,
            origin=grant.origin,
            expires_at=grant.expires_at,
        )


class PublicKeySet(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, str]]


class GrantRevocationRequest(StrictRequest):
    """The grants to revoke: one, those of a backend, or all."""

    grant_id: ResourceId | None = None
    backend_issuer: IssuerName | None = Field(
        None, description="With `backend_subject`: the backend.", examples=["https://id.example.com"]
    )
    backend_subject: Subject | None = None
    everything: bool = False
    confirm: str | None = Field(
        None,
        max_length=64,
        description="The namespace (DIALTONE_NAMESPACE). Required unless the request names one grant.",
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.backend_issuer is None) != (self.backend_subject is None):
            raise ValueError("backend_issuer and backend_subject must be given together.")
        if sum((self.grant_id is not None, self.backend_subject is not None, self.everything)) != 1:
            raise ValueError(
                "Exactly one of these must be given: grant_id, backend_issuer and backend_subject, everything."
            )
        return self

    def backend(self) -> UserKey | None:
        if self.backend_issuer is None or self.backend_subject is None:
            return None
        return UserKey(self.backend_issuer, self.backend_subject)


class GrantRevocationResult(BaseModel):
    """The number of grants that were revoked, and of devices that were logged out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revoked": 3, "leases": 2, "complete": True}]})

    revoked: int
    leases: int
    complete: bool = Field(description="False if more grants match: repeat the request to revoke the rest.")

    @classmethod
    def from_revocation(cls, found: GrantRevocation) -> Self:
        return cls(revoked=found.grants, leases=found.leases, complete=found.is_all)

"""What operators send and are answered."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.schemas.fields import DeviceId, Instant, IssuerName, Request, Subject
from app.vending.models import Owner, Platform
from app.vending.operators.lease_admin import Criteria
from app.vending.telephony.lease import State

# -- leases ---------------------------------------------------------------------------------------------------------

SipUsername = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
ConnectionName = Annotated[str, StringConstraints(pattern=r"^\d{1,20}$")]

LEASE_EXAMPLE: dict[str, Any] = {
    "id": "0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "issuer": "https://id.example.com",
    "subject": "alice",
    "device_id": "tab-7f3a",
    "platform": "browser",
    "label": "Work laptop",
    "state": "active",
    "connection_id": "1293384261075731499",
    "credential_name": "dialtone-0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "telnyx_credential_id": "c215ade3-0d39-418e-94be-c5f780760199",
    "sip_username": "gencredSVEXqVb9cTkY",
    "sip_uri": "sip:gencredSVEXqVb9cTkY@sip.telnyx.com",
    "created_at": "2026-11-23T09:30:00.000Z",
    "updated_at": "2026-11-23T09:30:00.000Z",
    "expires_at": "2026-11-24T09:30:00.000Z",
    "usable_at": "2026-11-23T09:30:05.000Z",
    "deletion_attempts": 0,
    "retry_at": None,
}

DIALABLE_EXAMPLE: dict[str, Any] = {
    "sip_uri": "sip:gencredSVEXqVb9cTkY@sip.telnyx.com",
    "sip_username": "gencredSVEXqVb9cTkY",
    "device_id": "tab-7f3a",
    "platform": "browser",
    "label": "Work laptop",
    "expires_at": "2026-11-24T09:30:00.000Z",
}


class LeaseQuery(Request):
    """Which leases; what is left out does not matter."""

    issuer: IssuerName | None = None
    subject: Subject | None = Field(None, description="The user, as the issuer names them.")
    device_id: DeviceId | None = None
    platform: Platform | None = None
    state: State | None = Field(None, description="As the ledger has it: `expired` waits for its deletion at Telnyx.")
    connection_id: ConnectionName | None = None
    sip_username: SipUsername | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=256, description="`next_cursor` of the page before.")

    def criteria(self) -> Criteria:
        return Criteria(**self.model_dump(exclude={"limit", "cursor"}))


class LeaseInfo(BaseModel):
    """One lease, with everything that is known of it. There is no secret among it."""

    model_config = ConfigDict(json_schema_extra={"example": LEASE_EXAMPLE})

    id: str
    issuer: str
    subject: str
    device_id: str
    platform: Platform
    label: str | None
    state: State
    connection_id: str
    credential_name: str = Field(description="The credential's name at Telnyx.")
    telnyx_credential_id: str | None
    sip_username: str | None
    sip_uri: str | None
    created_at: Instant
    updated_at: Instant
    expires_at: Instant
    usable_at: Instant
    deletion_attempts: int = Field(description="How often the deletion at Telnyx was tried; from 8 on it is stuck.")
    retry_at: Instant | None = Field(description="When the sweeper tries again.")


class LeasePage(BaseModel):
    """A page of leases, newest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [LEASE_EXAMPLE], "next_cursor": None}})

    data: list[LeaseInfo]
    next_cursor: str | None = Field(description="For the `cursor` of the next page; null on the last.")


class Dialable(BaseModel):
    """One address at which a user can be rung now."""

    sip_uri: str
    sip_username: str
    device_id: str
    platform: Platform
    label: str | None
    expires_at: Instant


class DialableList(BaseModel):
    """Where a user can be rung now, the latest device first. Empty where they have no live login."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [DIALABLE_EXAMPLE]}})

    data: list[Dialable]


class RevocationRequest(Request):
    """Whom to log out: a user, everybody on a connection, or everybody."""

    issuer: IssuerName | None = Field(
        None, description="With `subject`: the user.", examples=["https://id.example.com"]
    )
    subject: Subject | None = None
    connection_id: ConnectionName | None = None
    everything: bool = False
    confirm: str | None = Field(
        None,
        max_length=64,
        description="The namespace (DIALTONE_NAMESPACE); asked for where more than a user is meant.",
    )
    refuse_tokens: bool = Field(
        False, description="Also refuse the user's tokens from before now: else their devices just come back."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.issuer is None) != (self.subject is None):
            raise ValueError("A user is an issuer and a subject.")
        if sum((self.subject is not None, self.connection_id is not None, self.everything)) != 1:
            raise ValueError("Name one of: issuer and subject, connection_id, everything.")
        if self.refuse_tokens and self.subject is None:
            raise ValueError("refuse_tokens goes with a user; PUT /v1/admin/not-before ends an issuer's tokens.")
        return self

    def owner(self) -> Owner | None:
        return Owner(self.issuer, self.subject) if self.issuer is not None and self.subject is not None else None

    def criteria(self) -> Criteria:
        return Criteria(issuer=self.issuer, subject=self.subject, connection_id=self.connection_id)


class Revocations(BaseModel):
    """How many devices were logged out. Their credentials are deleted at Telnyx in the background."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"revoked": 3, "is_all": True, "look_at": "/v1/admin/leases?state=revoking"}}
    )

    revoked: int
    is_all: bool = Field(description="False after very many: send the same request again for the rest.")
    look_at: str = Field(description="What Telnyx has not yet confirmed. Empty when it is done.")

"""Leases as operators see them, and revocations of many leases."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.pagination import Cursor, Page
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import (
    DIGITS,
    LAST_USED,
    ONLINE,
    ConnectionId,
    DeviceId,
    IdPrefix,
    Instant,
    IssuerName,
    PresenceFlag,
    QueryParameters,
    SipUsername,
    StrictRequest,
    Subject,
)
from app.vending.models import Platform, UserKey
from app.vending.operators.lease_admin import BulkRevocation, LeaseCriteria
from app.vending.telephony.lease import Lease, LeaseState

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
    "last_used_at": "2026-11-23T11:10:02.000Z",
    "online": True,
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
    "last_used_at": "2026-11-23T11:10:02.000Z",
    "online": True,
}


class LeaseQuery(QueryParameters):
    """Filters of leases. An omitted filter matches every lease."""

    issuer: IssuerName | None = None
    subject: Subject | None = Field(None, description="The user, as the issuer names them.")
    device_id: DeviceId | None = None
    platform: Platform | None = None
    state: LeaseState | None = Field(None, description="State in the ledger. `expired`: not yet deleted at Telnyx.")
    connection_id: ConnectionId | None = None
    sip_username: SipUsername | None = None
    id_prefix: IdPrefix | None = Field(None, description="The first characters of the ID.")
    presence: PresenceFlag = False
    limit: Annotated[int, Field(ge=1, le=100), DIGITS] = 20
    cursor: Cursor = None

    def criteria(self) -> LeaseCriteria:
        return LeaseCriteria(**self.model_dump(exclude={"presence", "limit", "cursor"}))


class LeaseInfo(BaseModel):
    """One lease, as stored in the ledger. Contains no secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [LEASE_EXAMPLE]})

    id: str
    issuer: str
    subject: str
    device_id: str
    platform: Platform
    label: str | None
    state: LeaseState
    connection_id: str
    credential_name: str = Field(description="The credential's name at Telnyx.")
    telnyx_credential_id: str | None
    sip_username: str | None
    sip_uri: str | None
    created_at: Instant
    updated_at: Instant
    expires_at: Instant
    usable_at: Instant
    last_used_at: Instant | None = Field(description=LAST_USED)
    online: bool | None = Field(description=ONLINE)
    deletion_attempts: int = Field(
        description="Attempts to delete the credential at Telnyx. After 8 attempts it counts as irrevocable."
    )
    retry_at: Instant | None = Field(description="When the sweeper retries the deletion.")

    @classmethod
    def from_lease(cls, lease: Lease, settings: ClientSettings, online: bool | None = None) -> Self:
        return cls(
            id=lease.id,
            issuer=lease.issuer,
            subject=lease.subject,
            device_id=lease.device_id,
            platform=lease.platform,
            label=lease.label,
            state=lease.state,
            connection_id=lease.connection_id,
            credential_name=lease.credential_name,
            telnyx_credential_id=lease.credential_id,
            sip_username=lease.sip_username,
            sip_uri=settings.sip_uri(lease.sip_username) if lease.sip_username else None,
            created_at=lease.created_at,
            updated_at=lease.updated_at,
            expires_at=lease.expires_at,
            usable_at=lease.usable_at,
            last_used_at=lease.last_used_at,
            online=online,
            deletion_attempts=lease.attempts,
            retry_at=lease.retry_at,
        )


class LeasePage(Page[LeaseInfo]):
    """A page of leases, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [LEASE_EXAMPLE], "next_cursor": None}]})


class DialableDevice(BaseModel):
    """A device with a usable login, and the SIP address to dial. Without `online`, it is not known to be reachable."""

    sip_uri: str
    sip_username: str
    device_id: str
    platform: Platform
    label: str | None
    expires_at: Instant
    last_used_at: Instant | None = Field(description=LAST_USED)
    online: bool | None = Field(description=ONLINE)

    @classmethod
    def from_lease(cls, lease: Lease, settings: ClientSettings, online: bool | None = None) -> Self:
        sip_username = lease.sip_username or ""
        return cls(
            sip_uri=settings.sip_uri(sip_username),
            sip_username=sip_username,
            device_id=lease.device_id,
            platform=lease.platform,
            label=lease.label,
            expires_at=lease.expires_at,
            last_used_at=lease.last_used_at,
            online=online,
        )


class DialableDeviceList(BaseModel):
    """The devices of a user that have a usable login, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [DIALABLE_EXAMPLE]}]})

    data: list[DialableDevice]


class RevocationRequest(StrictRequest):
    """The leases to revoke: those of a user, of a connection, or all."""

    issuer: IssuerName | None = Field(
        None, description="With `subject`: the user.", examples=["https://id.example.com"]
    )
    subject: Subject | None = None
    connection_id: ConnectionId | None = None
    everything: bool = False
    confirm: str | None = Field(
        None,
        max_length=64,
        description="The namespace (DIALTONE_NAMESPACE). Required unless the request names one user.",
    )
    refuse_tokens: bool = Field(
        False, description="Also reject the user's tokens issued before now. Otherwise the devices can log in again."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.issuer is None) != (self.subject is None):
            raise ValueError("issuer and subject must be given together.")
        if sum((self.subject is not None, self.connection_id is not None, self.everything)) != 1:
            raise ValueError("Exactly one of these must be given: issuer and subject, connection_id, everything.")
        if self.refuse_tokens and self.subject is None:
            raise ValueError("refuse_tokens requires a user; PUT /v1/admin/not-before rejects the tokens of an issuer.")
        return self

    def user_key(self) -> UserKey | None:
        return UserKey(self.issuer, self.subject) if self.issuer is not None and self.subject is not None else None

    def criteria(self) -> LeaseCriteria:
        return LeaseCriteria(issuer=self.issuer, subject=self.subject, connection_id=self.connection_id)


STATUS_URL = "/v1/admin/leases?state=revoking"


class RevocationResult(BaseModel):
    """The number of devices that were logged out. Dialtone deletes their credentials at Telnyx in the background."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"revoked": 3, "complete": True, "status_url": STATUS_URL}]}
    )

    revoked: int
    complete: bool = Field(description="False if more leases match: repeat the request to revoke the rest.")
    status_url: str = Field(description="Path of the list of leases whose deletion Telnyx has not confirmed yet.")

    @classmethod
    def from_ended(cls, ended: BulkRevocation) -> Self:
        return cls(revoked=ended.count, complete=ended.is_all, status_url=STATUS_URL)

"""Telephony credentials: requests, logins and devices."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from app.api.pagination import Page
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import LAST_USED, ONLINE, DeviceId, Instant, Label, StrictRequest
from app.vending.models import IssueRequest, LoginMethod, Platform, RtcOptions
from app.vending.telephony.devices import LeaseChange
from app.vending.telephony.lease import Lease, LeaseState
from app.vending.telephony.login_cache import Login

MAX_TTL_SECONDS = 90 * 86_400
"""90 days."""


TtlSeconds = Annotated[int, Field(ge=60, le=MAX_TTL_SECONDS)]


class TelephonyCredentialRequest(StrictRequest):
    """The device to log in, and the requested login."""

    device_id: DeviceId = Field(
        description="The caller's name for this device, the same in every request. Two browser tabs are two devices.",
        examples=["tab-7f3a"],
    )
    platform: Platform = Field(
        Platform.BROWSER, strict=False, description="Determines how long the credential may live."
    )
    grant: LoginMethod = Field(
        LoginMethod.LOGIN_TOKEN,
        strict=False,
        description="`login_token` for the WebRTC SDKs; `sip_password` for classic SIP phones, if policy allows it.",
    )
    ttl_seconds: TtlSeconds | None = Field(
        None, description="The requested lifetime of the credential. Policy may shorten it: see `expires_at`."
    )
    label: Label | None = Field(None, description="The user's name for this device.", examples=["Work laptop"])

    def to_issue_request(self) -> IssueRequest:
        return IssueRequest(self.device_id, self.platform, self.grant, self.ttl_seconds, self.label)


class TelephonyCredentialChange(StrictRequest):
    """The fields to change. Omitted fields keep their value; `label: null` removes the label."""

    label: Label | None = None
    ttl_seconds: TtlSeconds | None = None

    def to_change(self) -> LeaseChange:
        return LeaseChange("label" in self.model_fields_set, self.label, self.ttl_seconds)


INFO_EXAMPLE: dict[str, Any] = {
    "id": "0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "device_id": "tab-7f3a",
    "platform": "browser",
    "label": "Work laptop",
    "state": "active",
    "sip_username": "gencredSVEXqVb9cTkY",
    "sip_uri": "sip:gencredSVEXqVb9cTkY@sip.telnyx.com",
    "issued_at": "2026-11-23T09:30:00.000Z",
    "expires_at": "2026-11-24T09:30:00.000Z",
    "usable_at": "2026-11-23T09:30:05.000Z",
    "last_used_at": "2026-11-23T11:10:02.000Z",
    "online": True,
    "server_time": "2026-11-23T11:12:13.456Z",
}

LOGIN_EXAMPLE: dict[str, Any] = {
    "id": "0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "device_id": "tab-7f3a",
    "login_token": "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9...",
    "sip_username": "gencredSVEXqVb9cTkY",
    "sip_uri": "sip:gencredSVEXqVb9cTkY@sip.telnyx.com",
    "issued_at": "2026-11-23T09:30:00.000Z",
    "expires_at": "2026-11-24T09:30:00.000Z",
    "refresh_after": "2026-11-24T03:30:00.000Z",
    "usable_at": "2026-11-23T09:30:05.000Z",
    "server_time": "2026-11-23T09:30:00.412Z",
}


class CallOptions(BaseModel):
    """Options for the SDK's `newCall`: the caller ID that policy gives the user. The client can change it."""

    callerName: str | None = Field(None, description="The caller's name.")  # noqa: N815 - the SDK's name
    callerNumber: str | None = Field(  # noqa: N815
        None, description="The caller's number in E.164.", examples=["+3224850111"]
    )

    @classmethod
    def from_options(cls, options: RtcOptions) -> Self | None:
        """None if policy gives no caller ID."""
        if options.caller_id_name is None and options.caller_id_number is None:
            return None
        return cls(callerName=options.caller_id_name, callerNumber=options.caller_id_number)


class Rtc(BaseModel):
    """Options of the WebRTC SDK: those of its constructor, and those of its calls."""

    host: str | None = Field(None, description="The signalling server, instead of the SDK's default.")
    region: str | None = None
    client_options: dict[str, bool] | None = Field(
        None,
        description="More options for the SDK's constructor, by the SDK's names.",
        examples=[{"prefetchIceCandidates": True}],
    )
    call_options: CallOptions | None = None

    @classmethod
    def from_options(cls, options: RtcOptions, settings: ClientSettings) -> Self | None:
        """None if the SDK's defaults apply."""
        rtc = cls(
            host=settings.rtc_host,
            region=options.region or settings.rtc_region,
            client_options=dict(options.client_options) or None,
            call_options=CallOptions.from_options(options),
        )
        return None if rtc == cls() else rtc


DeviceState = Literal["pending", "active", "revoking", "revoked", "expired", "lost", "failed"]


class TelephonyCredentialInfo(BaseModel):
    """One device and its credential. Contains no secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [INFO_EXAMPLE]})

    id: str = Field(
        description="Dialtone's ID of the credential. Telnyx uses another ID.",
        examples=["0b8f9d4e5a6c47d1a2b3c4d5e6f70812"],
    )
    device_id: str = Field(examples=["tab-7f3a"])
    platform: Platform
    label: str | None
    state: DeviceState = Field(
        description="Only an `active` login works. `revoking`: logged out; Telnyx has not confirmed the deletion yet."
    )
    sip_username: str | None = Field(examples=["gencredSVEXqVb9cTkY"])
    sip_uri: str | None = Field(description="The address to dial.", examples=["sip:gencredSVEXqVb9cTkY@sip.telnyx.com"])
    issued_at: Instant
    expires_at: Instant
    usable_at: Instant
    last_used_at: Instant | None = Field(description=LAST_USED)
    online: bool | None = Field(description=ONLINE)
    server_time: Instant

    @classmethod
    def from_lease(cls, lease: Lease, settings: ClientSettings, now: datetime, online: bool | None = None) -> Self:
        return cls(
            id=lease.id,
            device_id=lease.device_id,
            platform=lease.platform,
            label=lease.label,
            state=_device_state(lease, now),
            sip_username=lease.sip_username,
            sip_uri=settings.sip_uri(lease.sip_username) if lease.sip_username else None,
            issued_at=lease.created_at,
            expires_at=lease.expires_at,
            usable_at=lease.usable_at,
            last_used_at=lease.last_used_at,
            online=online,
            server_time=now,
        )


class TelephonyCredential(BaseModel):
    """A working login for one device: `login_token`, or `login` and `password` if `grant` is `sip_password`."""

    model_config = ConfigDict(json_schema_extra={"examples": [LOGIN_EXAMPLE]})

    id: str = Field(examples=["0b8f9d4e5a6c47d1a2b3c4d5e6f70812"])
    device_id: str = Field(examples=["tab-7f3a"])
    login_token: str | None = Field(
        None,
        description="For the SDK's `login_token` option. A secret.",
        examples=["eyJhbGciOiJIUzUxMiJ9..."],
    )
    login: str | None = Field(None, description="For the SDK's `login` option; only if `grant` is `sip_password`.")
    password: str | None = Field(
        None, description="For the SDK's `password` option; only if `grant` is `sip_password`. A secret."
    )
    sip_username: str = Field(examples=["gencredSVEXqVb9cTkY"])
    sip_uri: str = Field(description="The address to dial.", examples=["sip:gencredSVEXqVb9cTkY@sip.telnyx.com"])
    issued_at: Instant
    expires_at: Instant = Field(description="When the login stops working.")
    refresh_after: Instant = Field(description="When to request the next login; early enough for retries.")
    usable_at: Instant = Field(description="When the login starts to work; in the past unless the credential is new.")
    server_time: Instant = Field(description="The server's clock, to correct the client's.")
    rtc: Rtc | None = None

    @classmethod
    def from_login(cls, login: Login, settings: ClientSettings, now: datetime) -> Self:
        lease = login.lease
        sip_username = lease.sip_username or ""
        return cls(
            id=lease.id,
            device_id=lease.device_id,
            login_token=login.token.secret if login.token else None,
            login=sip_username if login.password else None,
            password=login.password.secret if login.password else None,
            sip_username=sip_username,
            sip_uri=settings.sip_uri(sip_username),
            issued_at=login.issued_at,
            expires_at=login.expires_at,
            refresh_after=login.refresh_after,
            usable_at=lease.usable_at,
            server_time=now,
            rtc=Rtc.from_options(login.rtc, settings),
        )


class TelephonyCredentialPage(Page[TelephonyCredentialInfo]):
    """A page of the caller's devices, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [INFO_EXAMPLE], "next_cursor": None}]})


class RevocationPending(BaseModel):
    """Logged out. Dialtone retries the deletion at Telnyx in the background."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "revoking"}]})

    state: Literal["revoking"] = "revoking"


def _device_state(lease: Lease, now: datetime) -> Any:
    """The state for users: an active lease past its expiry, and an expired lease that was deleted, are `expired`."""
    if lease.state is LeaseState.DELETED or (lease.state is LeaseState.ACTIVE and lease.has_expired(now)):
        return LeaseState.EXPIRED.value
    return lease.state.value

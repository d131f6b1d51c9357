"""What goes over the wire: requests and answers of the HTTP contract, and their translation from the nouns."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from app.api.schemas.fields import DeviceId, Instant, Label, Request
from app.vending.models import Grant, IssueRequest, Platform

LONGEST_TTL_SECONDS = 90 * 86_400


TtlSeconds = Annotated[int, Field(strict=True, ge=60, le=LONGEST_TTL_SECONDS)]


class TelephonyCredentialRequest(Request):
    """A device wants to log in."""

    device_id: DeviceId = Field(
        description="The caller's own name for this device, stable between requests. Two browser tabs are two devices.",
        examples=["tab-7f3a"],
    )
    platform: Platform = Field(Platform.BROWSER, description="Decides how long the credential may live.")
    grant: Grant = Field(
        Grant.LOGIN_TOKEN,
        description="`login_token` for the WebRTC SDKs; `sip_password` for classic SIP phones, where policy allows it.",
    )
    ttl_seconds: TtlSeconds | None = Field(
        None, description="A wish for the credential's lifetime. Policy may shorten it; `expires_at` tells."
    )
    label: Label | None = Field(None, description="What the user calls this device.", examples=["Work laptop"])

    def as_noun(self) -> IssueRequest:
        return IssueRequest(self.device_id, self.platform, self.grant, self.ttl_seconds, self.label)


class TelephonyCredentialChange(Request):
    """What to change. A field that is left out stays as it is; `label: null` removes the label."""

    label: Label | None = None
    ttl_seconds: TtlSeconds | None = None


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


class Rtc(BaseModel):
    """Options for the WebRTC SDK's constructor, where the client must be told."""

    host: str | None = Field(None, description="The signalling server, in place of the SDK's own choice.")
    region: str | None = None


class TelephonyCredentialInfo(BaseModel):
    """One device and its credential, without anything to log in with."""

    model_config = ConfigDict(json_schema_extra={"example": INFO_EXAMPLE})

    id: str = Field(
        description="The credential's id here. It is not Telnyx's.",
        examples=["0b8f9d4e5a6c47d1a2b3c4d5e6f70812"],
    )
    device_id: str = Field(examples=["tab-7f3a"])
    platform: Platform
    label: str | None
    state: Literal["pending", "active", "revoking", "revoked", "expired", "lost", "failed"] = Field(
        description="`active` is the one that works. `revoking`: logged out, Telnyx has not yet confirmed."
    )
    sip_username: str | None = Field(examples=["gencredSVEXqVb9cTkY"])
    sip_uri: str | None = Field(description="What others dial.", examples=["sip:gencredSVEXqVb9cTkY@sip.telnyx.com"])
    issued_at: Instant
    expires_at: Instant
    usable_at: Instant
    server_time: Instant


class TelephonyCredential(BaseModel):
    """A working login for one device: with `login_token`, or with `login` and `password` by the other grant."""

    model_config = ConfigDict(json_schema_extra={"example": LOGIN_EXAMPLE})

    id: str = Field(examples=["0b8f9d4e5a6c47d1a2b3c4d5e6f70812"])
    device_id: str = Field(examples=["tab-7f3a"])
    login_token: str | None = Field(
        None,
        description="For the SDK's `login_token` option. A secret.",
        examples=["eyJhbGciOiJIUzUxMiJ9..."],
    )
    login: str | None = Field(None, description="For the SDK's `login` option; only by `grant=sip_password`.")
    password: str | None = Field(
        None, description="For the SDK's `password` option; only by `grant=sip_password`. A secret."
    )
    sip_username: str = Field(examples=["gencredSVEXqVb9cTkY"])
    sip_uri: str = Field(description="What others dial.", examples=["sip:gencredSVEXqVb9cTkY@sip.telnyx.com"])
    issued_at: Instant
    expires_at: Instant = Field(description="The login works until then.")
    refresh_after: Instant = Field(description="Ask again from then on; early enough for further attempts.")
    usable_at: Instant = Field(description="The login works from then on; in the past unless it is brand new.")
    server_time: Instant = Field(description="Compare with your own clock.")
    rtc: Rtc | None = None


class TelephonyCredentialPage(BaseModel):
    """A page of the caller's devices, newest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [INFO_EXAMPLE], "next_cursor": None}})

    data: list[TelephonyCredentialInfo]
    next_cursor: str | None = Field(description="For the `cursor` of the next page; null on the last.")


class Revocation(BaseModel):
    """Logged out here, and Telnyx has not yet confirmed; it is seen through in the background."""

    model_config = ConfigDict(json_schema_extra={"example": {"state": "revoking"}})

    state: Literal["revoking"] = "revoking"

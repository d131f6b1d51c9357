"""What goes over the wire: requests and answers of the HTTP contract, and their translation from the nouns."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from app.vending.at_hand import Login
from app.vending.leases import Lease, State
from app.vending.marks import Mark, Reach, Target
from app.vending.nouns import Grant, IssueRequest, Platform

LONGEST_TTL_SECONDS = 90 * 86_400


def _instant(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, rounded down: an answer never promises more time than there is."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[
    datetime,
    PlainSerializer(_instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-23T09:30:00.000Z"]}),
]

DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Label = Annotated[
    str,
    # No controls and nothing that turns the direction of text: it ends up in other people's lists and in logs.
    StringConstraints(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+$",
    ),
]
TtlSeconds = Annotated[int, Field(strict=True, ge=60, le=LONGEST_TTL_SECONDS)]


class Request(BaseModel):
    """Unknown fields are refused: a misspelt wish must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


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


IssuerName = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class NotBeforeRequest(Request):
    """Whose tokens to refuse: a user's, a session's, or, with neither, everybody's of the issuer."""

    issuer: IssuerName = Field(description="The `iss` of the tokens.", examples=["https://id.example.com"])
    subject: Subject | None = Field(None, description="The user.")
    session: Subject | None = Field(None, description="The session (`sid`); in place of the user.")
    not_before: AwareDatetime | None = Field(None, description="Default: now.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.subject is not None and self.session is not None:
            raise ValueError("Name a subject or a session, not both.")
        return self

    def target(self) -> Target:
        if self.session is not None:
            return Target(self.issuer, Reach.SESSION, self.session)
        return Target(self.issuer, Reach.USER, self.subject) if self.subject is not None else Target(self.issuer)


class NotBefore(BaseModel):
    """The mark as it was set."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "issuer": "https://id.example.com",
                "reach": "user",
                "name": "alice",
                "not_before": "2026-11-23T09:30:00.000Z",
            }
        }
    )

    issuer: str
    reach: Literal["issuer", "user", "session"]
    name: str = Field(description="The subject or the session; empty for a whole issuer.")
    not_before: Instant

    @classmethod
    def of(cls, mark: Mark) -> Self:
        target = mark.target
        return cls.model_validate(
            {"issuer": target.issuer, "reach": target.reach, "name": target.name, "not_before": mark.not_before}
        )


class KeySetInfo(BaseModel):
    """One issuer's keys."""

    model_config = ConfigDict(from_attributes=True)

    issuer: str
    keys: int = Field(description="Usable ones.")
    age_seconds: float | None = Field(description="Since they were last confirmed; null where they are fixed.")
    fetches: int
    failures: int


class KeySets(BaseModel):
    """The issuers' keys, as one replica has them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {"issuer": "https://id.example.com", "keys": 2, "age_seconds": 41.5, "fetches": 12, "failures": 0}
                ]
            }
        }
    )

    data: list[KeySetInfo]


class KeyRefreshRequest(Request):
    """Which keys to fetch anew."""

    issuer: IssuerName | None = Field(None, description="Default: every issuer.")


class KeyRefreshes(BaseModel):
    """By issuer, whether its keys could be fetched by this replica. Where not, the keys at hand stay."""

    model_config = ConfigDict(json_schema_extra={"example": {"refreshed": {"https://id.example.com": True}}})

    refreshed: dict[str, bool]


class ProblemDocument(BaseModel):
    """An error, RFC 9457. Branch on `code`."""

    type: str = Field(examples=["urn:dialtone:problem:invalid_token"])
    title: str
    status: int
    code: str
    request_id: str = Field(examples=["7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c"])
    retryable: bool
    errors: list[dict[str, Any]] | None = Field(None, description="For `invalid_request`: where, and what about it.")


class Presenter:
    """Turns nouns into answers: knows the SIP domain and what a client must be told about signalling."""

    def __init__(self, sip_domain: str, rtc_host: str | None, rtc_region: str | None) -> None:
        self._sip_domain = sip_domain
        self._rtc = Rtc(host=rtc_host, region=rtc_region) if rtc_host or rtc_region else None

    def login(self, login: Login, now: datetime) -> TelephonyCredential:
        lease = login.lease
        sip_username = lease.sip_username or ""
        return TelephonyCredential(
            id=lease.id,
            device_id=lease.device_id,
            login_token=login.token.secret if login.token else None,
            login=sip_username if login.password else None,
            password=login.password.secret if login.password else None,
            sip_username=sip_username,
            sip_uri=self._uri(sip_username),
            issued_at=login.issued_at,
            expires_at=login.expires_at,
            refresh_after=login.refresh_after,
            usable_at=lease.usable_at,
            server_time=now,
            rtc=self._rtc,
        )

    def info(self, lease: Lease, now: datetime) -> TelephonyCredentialInfo:
        return TelephonyCredentialInfo(
            id=lease.id,
            device_id=lease.device_id,
            platform=lease.platform,
            label=lease.label,
            state=_public_state(lease, now),
            sip_username=lease.sip_username,
            sip_uri=self._uri(lease.sip_username) if lease.sip_username else None,
            issued_at=lease.created_at,
            expires_at=lease.expires_at,
            usable_at=lease.usable_at,
            server_time=now,
        )

    def _uri(self, sip_username: str) -> str:
        return f"sip:{sip_username}@{self._sip_domain}"


def _public_state(lease: Lease, now: datetime) -> Any:
    """What the user may know: an expired lease is expired from the second on, and stays so when it was cleaned up."""
    if lease.state is State.DELETED or (lease.state is State.ACTIVE and lease.has_expired(now)):
        return State.EXPIRED.value
    return lease.state.value


class InvalidCursor(Exception):
    """The cursor is not one that this service gave out."""


def encode_cursor(lease: Lease) -> str:
    """Where the next page begins. Opaque to callers, but no secret: it opens nobody else's page."""
    return base64.urlsafe_b64encode(json.dumps([lease.created_at.isoformat(), lease.id]).encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Raises InvalidCursor for anything that `encode_cursor` would not make."""
    try:
        created_at, lease_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        moment = datetime.fromisoformat(created_at)
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursor from None
    if moment.tzinfo is None or not isinstance(lease_id, str) or not re.fullmatch("[0-9a-f]{32}", lease_id):
        raise InvalidCursor
    return moment, lease_id

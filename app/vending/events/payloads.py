"""The members of `data` by the kind of event. The event reference of the documentation site is generated from it."""

from typing import NotRequired, TypedDict


class CommonData(TypedDict):
    """Members of all events. They name the user and the device."""

    issuer: str | None
    """The issuer of the user. Null if the event concerns no single user."""
    subject: str | None
    """The subject of the user. Null if the event concerns no single user."""
    device_id: str | None
    """The device. Null if the event concerns no device."""
    lease_id: str | None
    """The lease. Null if the event concerns no lease."""


class LeaseData(TypedDict):
    """Members of events about leases."""

    platform: str
    """`browser`, `ios` or `android`."""
    connection_id: str
    """Telnyx's ID of the connection."""
    sip_username: NotRequired[str | None]
    """The SIP username of the device. Missing after an erasure of the user."""
    sip_address: NotRequired[str | None]
    """The address at which calls reach the device. Missing after an erasure of the user."""
    expires_at: str
    """The expiry of the credential, as a timestamp of RFC 3339."""
    version: int
    """Increases with each change of the lease."""
    reason: str | None
    """`lost` if Telnyx reported the credential as gone. Otherwise null."""


class PushData(TypedDict):
    """Members of events about push credentials."""

    type: str
    """`ios` or `android`."""
    app_id: str
    """The bundle ID of an iOS app, or the Firebase project ID of an Android app."""
    fingerprint_sha256: str
    """The fingerprint of the certificate or of the service account's public key."""
    not_after: str | None
    """The expiry of the certificate, as a timestamp of RFC 3339. Null if it does not expire."""


class PushRegisteredData(PushData):
    """Members of events about registrations."""

    push_credential_id: str
    """The ID of the registration."""


class PushExpiringData(PushData):
    """Members of events about expiries."""

    days_left: int
    """Days until the expiry, rounded up: 1 on the last day, and 0 after the expiry."""


class DenialData(TypedDict):
    """Members of events about denials."""

    reason: str
    """The class of the error, such as `AccessDenied` or `DeviceLimitReached`."""
    rule: str | None
    """The name of the rule that denies. Null if no rule matches."""

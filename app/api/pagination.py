"""Nouns into answers, and cursors there and back."""

import base64
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from app.api.schemas.leases import Dialable, DialableList, LeaseInfo
from app.api.schemas.telephony_credentials import Rtc, TelephonyCredential, TelephonyCredentialInfo
from app.vending.telephony.lease import Lease, State
from app.vending.telephony.login_cache import Login


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

    def lease(self, lease: Lease) -> LeaseInfo:
        """For operators: as the ledger has it."""
        return LeaseInfo(
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
            sip_uri=self._uri(lease.sip_username) if lease.sip_username else None,
            created_at=lease.created_at,
            updated_at=lease.updated_at,
            expires_at=lease.expires_at,
            usable_at=lease.usable_at,
            deletion_attempts=lease.attempts,
            retry_at=lease.retry_at,
        )

    def dialable(self, leases: Iterable[Lease]) -> DialableList:
        return DialableList(
            data=[
                Dialable(
                    sip_uri=self._uri(lease.sip_username or ""),
                    sip_username=lease.sip_username or "",
                    device_id=lease.device_id,
                    platform=lease.platform,
                    label=lease.label,
                    expires_at=lease.expires_at,
                )
                for lease in leases
            ]
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


def encode_cursor(moment: datetime, name: str) -> str:
    """Where the next page begins. Opaque to callers, but no secret: it opens nobody else's page."""
    return base64.urlsafe_b64encode(json.dumps([moment.isoformat(), name]).encode()).decode()


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

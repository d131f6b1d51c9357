"""Whether devices are registered with Telnyx: `GET /sip_registration_status`, one SIP username per call.

Telnyx publishes no rate limit for this resource, and does not document how soon it shows a registration of the WebRTC
SDK or the loss of one. Its OpenAPI description of 2026-07 does not support telephony credentials here, but its SDKs do.
"""

from typing import Any

from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.responses import json_object
from app.vending.telephony.presence import LOOKUP_SECONDS

_REGISTERED = {"registered": True, "unregistering": False, "connection_disabled": False, "failed": False}
"""Telnyx's statuses. Any other status is unknown."""


class TelnyxRegistrations:
    """The registrations of telephony credentials."""

    def __init__(self, api: TelnyxApi, lookup_seconds: float = LOOKUP_SECONDS) -> None:
        self._api = api
        self._lookup_seconds = lookup_seconds

    async def is_registered(self, sip_username: str) -> bool | None:
        """Whether a device is registered under this name; None if the response does not say. Raises TelnyxError."""
        params = {"credential_type": "telephony_credential", "username": sip_username}
        path = "/sip_registration_status"
        answer = await self._api.send_best_effort("GET", path, self._lookup_seconds, params=params)
        return _is_registered(json_object(answer.body), sip_username)


def _is_registered(content: dict[str, Any], sip_username: str) -> bool | None:
    """The SDK's model has no envelope, unlike those of other resources. Both forms are accepted."""
    data = content.get("data")
    status = data if isinstance(data, dict) else content
    if status.get("credential_username") not in (None, sip_username):
        return None
    registered, name = status.get("registered"), status.get("sip_registration_status")
    if isinstance(registered, bool):
        return registered
    return _REGISTERED.get(name) if isinstance(name, str) else None

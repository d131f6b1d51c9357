"""Outbound voice profiles and spend limits of the sandbox: what the calls of a connection may cost.

The sandbox makes no calls to phone numbers, so nothing here is enforced. A new account has no profile.
"""

import uuid
from typing import Any

from app.sandbox.account import not_found


class Billing:
    """The outbound voice profiles by id, and the spend limits of the account."""

    def __init__(self) -> None:
        self.outbound_profiles: dict[str, dict[str, Any]] = {}
        self.spend_limits: list[dict[str, Any]] = []

    def add_outbound_profile(self, **fields: Any) -> str:
        """The id of a new profile. Without fields it is enabled, and limits neither spend nor calls."""
        profile_id = str(uuid.uuid4())
        profile = {
            "id": profile_id,
            "record_type": "outbound_voice_profile",
            "name": "sandbox",
            "enabled": True,
            "daily_spend_limit": None,
            "daily_spend_limit_enabled": False,
            "concurrent_call_limit": None,
            "max_destination_rate": None,
            "whitelisted_destinations": ["US", "CA"],
            "calling_window": None,
        }
        self.outbound_profiles[profile_id] = profile | fields
        return profile_id

    def outbound_profile(self, profile_id: str) -> dict[str, Any]:
        """Raises ApiError for an unknown id."""
        found = self.outbound_profiles.get(profile_id)
        if found is None:
            raise not_found()
        return found

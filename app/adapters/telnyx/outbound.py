"""The outbound limits of a connection, from its outbound voice profile, and the spend limits of the account."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from app.adapters.telnyx.api import ATTEMPTS, TelnyxApi
from app.adapters.telnyx.responses import data_of, text_of
from app.vending.errors import TelnyxResponseInvalid
from app.vending.outbound import OutboundProfile

PAGE_SIZE = 50
"""Spend limits in one response."""

MAX_USD = Decimal(10**9)
"""Larger amounts are no plausible limits, and count as none."""

_COUNTRY = re.compile(r"[A-Z]{2}\Z")


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """A limit of the account for one product. Telnyx documents limits for `inference` only, and none for calls."""

    product: str
    period: str
    limit_usd: Decimal | None
    """None: unlimited."""


class TelnyxOutbound:
    """Reads outbound voice profiles and spend limits. All methods raise TelnyxError."""

    def __init__(self, api: TelnyxApi) -> None:
        self._api = api

    async def read(self, connection_id: str) -> OutboundProfile | None:
        """The limits of the connection's calls to phone numbers; None if it has no enabled profile.

        Strict about the connection's reference, because a connection without one counts as safe.
        """
        path = "/credential_connections/" + quote(connection_id, safe="")
        outbound = data_of(await self._api.send("GET", path, attempts=ATTEMPTS)).get("outbound")
        if not isinstance(outbound, dict) or "outbound_voice_profile_id" not in outbound:
            raise TelnyxResponseInvalid
        if outbound["outbound_voice_profile_id"] in (None, ""):
            return None
        profile_id = text_of(outbound, "outbound_voice_profile_id")
        path = "/outbound_voice_profiles/" + quote(profile_id, safe="")
        return _profile(data_of(await self._api.send("GET", path, attempts=ATTEMPTS)))

    async def spend_limits(self) -> AsyncIterator[SpendLimit]:
        """The spend limits of the account."""
        async for item in self._api.items("/spend_limits", {}, PAGE_SIZE):
            yield SpendLimit(text_of(item, "product"), text_of(item, "period"), _usd(item.get("effective_limit_usd")))


def _profile(data: dict[str, Any]) -> OutboundProfile | None:
    """A limit that is absent or unreadable counts as no limit."""
    if data.get("enabled") is False:
        return None
    is_limited = data.get("daily_spend_limit_enabled") is True
    countries = data.get("whitelisted_destinations")
    calls = data.get("concurrent_call_limit")
    return OutboundProfile(
        daily_limit_usd=_usd(data.get("daily_spend_limit")) if is_limited else None,
        destinations=tuple(
            country
            for country in (countries if isinstance(countries, list) else [])
            if isinstance(country, str) and _COUNTRY.match(country)
        ),
        concurrent_calls=calls if isinstance(calls, int) and not isinstance(calls, bool) and calls >= 0 else None,
        max_rate_usd=_usd(data.get("max_destination_rate")),
    )


def _usd(value: Any) -> Decimal | None:
    """An amount, from text or a number; None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= MAX_USD else None

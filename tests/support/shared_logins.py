"""Services that share logins in Redis: their settings, keys, and a login."""

import base64
from typing import Any

from app.vending.models import LoginToken
from app.vending.telephony.login_cache import Login
from tests.support.leases import LEASE, NOW
from tests.support.waiting import HOUR

FIRST, SECOND = b"k" * 32, b"\xff" * 32
KEY = base64.b64encode(FIRST).decode()
OTHER_KEY = base64.urlsafe_b64encode(SECOND).decode()

SECRET = "eyJ.secret.secret"
LOGIN = Login(LEASE, NOW, NOW + 3 * HOUR, NOW + 2 * HOUR, LoginToken(SECRET, NOW + 3 * HOUR))


def sharing(url: str, keys: str = KEY) -> dict[str, Any]:
    """The settings of a service that shares logins."""
    return {"login_cache_url": url, "login_cache_keys": keys}

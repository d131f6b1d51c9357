"""Settings of services that share logins in Redis, and keys for them."""

import base64
from typing import Any

KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.urlsafe_b64encode(b"\xff" * 32).decode()


def sharing(url: str, keys: str = KEY) -> dict[str, Any]:
    """The settings of a service that shares logins."""
    return {"login_cache_url": url, "login_cache_keys": keys}

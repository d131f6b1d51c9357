"""Builds the shared login cache, and computes the size of a replica's own."""

from app.adapters.login_cache.sealing import NAME_PREFIX, LoginSealer, parse_keys
from app.adapters.login_cache.shared import SharedLoginCache
from app.composition.components import Overrides
from app.config.settings import Settings

BYTES_PER_DEVICE = 6 * 1024
"""Memory of a device with a cached login: the login, its response, its access token's verdict, its counters."""


def cached_devices(settings: Settings) -> int:
    """Devices whose login and access token are cached."""
    return settings.login_cache_mb * 1024 * 1024 // BYTES_PER_DEVICE


def build_shared_login_cache(settings: Settings, overrides: Overrides) -> SharedLoginCache | None:
    """None unless it is configured."""
    if settings.login_cache_url is None or settings.login_cache_keys is None:
        return None
    from app.adapters.login_cache.redis_store import RedisStore  # a service without Redis does not load its library

    store = RedisStore(settings.login_cache_url.get_secret_value(), NAME_PREFIX)
    sealer = LoginSealer(parse_keys(settings.login_cache_keys.get_secret_value()), settings.namespace)
    return SharedLoginCache(store, sealer, overrides.clock)

"""Builds the rate limiter, and its counts that replicas share."""

from app.adapters.rate_limiter import RateLimiter, RateLimits, parse_rate_limit
from app.adapters.shared_counts import SharedCounts
from app.composition.components import Overrides
from app.config.settings import Settings


def build_shared_counts(settings: Settings, overrides: Overrides) -> SharedCounts | None:
    """None if no Redis is configured."""
    if settings.redis_url is None:
        return None
    return SharedCounts(settings.redis_url.get_secret_value(), overrides.monotonic, settings.namespace)


def build_rate_limiter(settings: Settings, overrides: Overrides, shared_counts: SharedCounts | None) -> RateLimiter:
    rates = RateLimits(
        parse_rate_limit(settings.limit_user),
        parse_rate_limit(settings.limit_issuer),
        parse_rate_limit(settings.limit_failures),
        parse_rate_limit(settings.limit_guest),
        parse_rate_limit(settings.limit_guest_grants),
        parse_rate_limit(settings.limit_user_grants),
    )
    return RateLimiter(rates, overrides.monotonic, shared_counts)

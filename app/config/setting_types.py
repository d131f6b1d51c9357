"""Types of settings, with the checks of their values. No message contains a value."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from app.adapters.addresses import is_proxy_url, is_safe_url
from app.adapters.ledger.engines import database_url
from app.adapters.rate_limiter import parse_rate_limit
from app.config.cors import check_header, check_origin
from app.observability import tracing
from app.vending.telephony.durations import MAX_TTL, MIN_TTL

Words = frozenset[str]

MAX_POOL_SIZE = 500


def _check_ttl(value: int) -> int:
    if not MIN_TTL <= timedelta(seconds=value) <= MAX_TTL:
        raise ValueError("must be between 60 seconds and 90 days")
    return value


def _check_url(value: str) -> str:
    if not is_safe_url(value):
        raise ValueError("must be an https URL (or http to localhost), without user, password or fragment")
    return value


def _check_database(value: SecretStr) -> SecretStr:
    database_url(value.get_secret_value())
    return value


def _check_rate(value: str) -> str:
    try:
        parse_rate_limit(value)
    except ValueError:
        raise ValueError("must be one rate of at least 1, such as 300/minute or 5/second, or none") from None
    return value


def _check_redis(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.startswith(("redis://", "rediss://")):
        raise ValueError("must be redis://HOST:PORT/DATABASE or rediss://...")
    from app.adapters.login_cache.redis_url import check_url  # a service without Redis does not load its library

    check_url(url)
    return value


def _read_pool_size(value: object) -> object:
    """None for `auto`."""
    if value is None or value == "auto":
        return None
    if str(value).isascii() and str(value).isdigit() and int(str(value)) <= MAX_POOL_SIZE:
        return value
    raise ValueError(f"must be auto, or a number from 0 to {MAX_POOL_SIZE}")


def _check_proxy(value: SecretStr) -> SecretStr:
    if not is_proxy_url(value.get_secret_value()):
        raise ValueError(
            "must be http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host if the proxy "
            "requires it; write special characters of the password in percent-encoding"
        )
    return value


def _check_origins(value: Words) -> Words:
    for origin in sorted(value):
        check_origin(origin)
    return value


def _check_headers(value: Words) -> Words:
    for name in sorted(value):
        check_header(name)
    return value


def _check_tracing(value: bool) -> bool:
    if value and not tracing.is_installed():
        raise ValueError("OpenTelemetry is not installed; see docs/observability.md#tracing")
    return value


TtlSeconds = Annotated[int, AfterValidator(_check_ttl)]
ApiUrl = Annotated[str, AfterValidator(_check_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database)]
RateLimit = Annotated[str, AfterValidator(_check_rate)]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis)]
WarmPoolSize = Annotated[int | None, BeforeValidator(_read_pool_size)]
"""The warm pool's number of credentials for a connection. None: it depends on the demand."""
ProxyUrl = Annotated[SecretStr, AfterValidator(_check_proxy)]
Origins = Annotated[Words, AfterValidator(_check_origins)]
HeaderNames = Annotated[Words, AfterValidator(_check_headers)]
Tracing = Annotated[bool, AfterValidator(_check_tracing)]

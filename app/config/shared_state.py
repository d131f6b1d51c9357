"""The settings of rate limits and of the login cache, which replicas can share in Redis or Valkey."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from app.adapters.login_cache.sealing import parse_keys
from app.config.setting_types import RateLimit, RedisUrl


def _check_keys(value: SecretStr) -> SecretStr:
    parse_keys(value.get_secret_value())
    return value


class SharedStateSettings(BaseModel):
    """The settings of rate limits and of the login cache. `Settings` inherits them."""

    limit_user: RateLimit = "12000/minute"
    limit_issuer: RateLimit = "none"
    limit_failures: RateLimit = "6000/minute"
    limit_guest: RateLimit = "60/minute"
    limit_guest_grants: RateLimit = "600/minute"
    limit_user_grants: RateLimit = "6000/minute"
    redis_url: RedisUrl | None = None
    redis_url_file: str | None = None
    login_cache_mb: int = Field(256, ge=1, le=65_536)
    login_cache_url: RedisUrl | None = None
    login_cache_url_file: str | None = None
    login_cache_keys: Annotated[SecretStr, AfterValidator(_check_keys)] | None = None
    login_cache_keys_file: str | None = None

    @model_validator(mode="after")
    def _check_login_cache(self) -> Self:
        if self.login_cache_url is not None and self.login_cache_keys is None:
            raise ValueError(
                "DIALTONE_LOGIN_CACHE_URL is set, but DIALTONE_LOGIN_CACHE_KEYS is not; .env.example describes it"
            )
        return self

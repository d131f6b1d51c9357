"""The settings that are secrets or the paths of their files. During a rotation, a key has a previous one beside it."""

from pydantic import BaseModel, Field, SecretStr

SECRETS = (
    *("telnyx_api_key", "database_url", "issuer_secret", "previous_issuer_secret", "issuer_pem"),
    *("grant_key", "other_grant_key"),
    *("tag_key", "previous_tag_key", "redis_url", "login_cache_url", "login_cache_keys", "egress_proxy"),
)
"""Settings that can also be read from a file: `<NAME>_FILE`."""

FREE_TEXT = ("issuer_secret", "previous_issuer_secret", "tag_key", "previous_tag_key")
"""Generated secrets, of which quotes may be a part."""


class SecretSettings(BaseModel):
    """Secrets without a type of their own, and the files of all secrets."""

    telnyx_api_key: SecretStr = Field(validation_alias="TELNYX_API_KEY")
    issuer_pem: SecretStr | None = None
    issuer_secret: SecretStr | None = None
    previous_issuer_secret: SecretStr | None = None
    tag_key: SecretStr | None = None
    previous_tag_key: SecretStr | None = None
    grant_key: SecretStr | None = None
    other_grant_key: SecretStr | None = None

    telnyx_api_key_file: str | None = Field(None, validation_alias="TELNYX_API_KEY_FILE")
    issuer_pem_file: str | None = None
    issuer_secret_file: str | None = None
    previous_issuer_secret_file: str | None = None
    database_url_file: str | None = None
    tag_key_file: str | None = None
    previous_tag_key_file: str | None = None
    grant_key_file: str | None = None
    other_grant_key_file: str | None = None
    egress_proxy_file: str | None = None

    @property
    def rotating(self) -> list[str]:
        """The settings that have a previous value."""
        return [name for name in ("tag_key", "issuer_secret") if getattr(self, f"previous_{name}") is not None]

    def check_rotation(self) -> None:
        """Raises ValueError if a previous key has no new one, or is the same."""
        for name in self.rotating:
            new, previous = getattr(self, name), getattr(self, f"previous_{name}")
            if new is None:
                raise ValueError(f"DIALTONE_PREVIOUS_{name.upper()} is set without DIALTONE_{name.upper()}; set both")
            if new.get_secret_value() == previous.get_secret_value():
                raise ValueError(f"DIALTONE_PREVIOUS_{name.upper()} and DIALTONE_{name.upper()} are equal")

"""Settings: every environment variable that Dialtone reads, checked before the service listens.

`.env.example` describes all of them. An invalid or contradictory setting ends the process with one line that names the
variable and never shows a value.
"""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.adapters.addresses import is_loopback, is_proxy_url, is_safe_url
from app.adapters.ledger.engines import database_url
from app.adapters.rate_limiter import parse_rate_limit
from app.config.cors import check_header, check_origin
from app.config.file import ConfigError, ConfigFile, IssuerTable, ResolvedConfig, first_fault, read, resolve
from app.config.issuer_variables import ISSUER_FIELDS, ProviderVariables
from app.config.tables import FieldError
from app.config.values import cleaned
from app.observability import tracing
from app.vending.models import Grant, Platform
from app.vending.policy import Allowance, DeviceLimitAction
from app.vending.telephony.durations import MAX_TTL, MIN_TTL

_REAL_API_KEY = re.compile(r"KEY[0-9A-F]{16,}_\w+")
"""The format of keys from the Telnyx portal: KEY, upper-case hex, an underscore, and more characters."""

_SECRETS = ("telnyx_api_key", "database_url", "issuer_secret", "issuer_pem", "tag_key", "redis_url", "egress_proxy")
"""Settings that can also be read from a file: `<NAME>_FILE`."""

_ELSEWHERE = ("DIALTONE_ENV_FILE", "DIALTONE_SANDBOX_PORT", "DIALTONE_IDENTITY_PORT", "DIALTONE_PAGE_PORT")
"""Variables that are read elsewhere: the path of the settings file, and the ports of `make dev`."""

Words = Annotated[frozenset[str], NoDecode]
"""Words that are separated by commas or spaces."""


class SettingsError(Exception):
    """An invalid setting. The message is one line with the variable and the fix, without values."""


class Settings(ProviderVariables, BaseSettings):
    """The configuration of one process. `TELNYX_*` are Telnyx's own names; all others begin with `DIALTONE_`."""

    model_config = SettingsConfigDict(
        env_prefix="DIALTONE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        validate_default=True,
        populate_by_name=True,
    )

    _env_file: str | None = PrivateAttr(None)

    # Telnyx
    telnyx_api_key: SecretStr = Field(validation_alias="TELNYX_API_KEY")
    telnyx_connection_id: str = Field(validation_alias="TELNYX_CONNECTION_ID", pattern=r"^\d{1,20}$")
    telnyx_base_url: str = Field("https://api.telnyx.com/v2", validation_alias="TELNYX_BASE_URL")
    telnyx_call_seconds: float = Field(5.0, validation_alias="TELNYX_CALL_SECONDS", gt=0, le=60)
    sip_domain: str = Field("sip.telnyx.com", pattern=r"^[A-Za-z0-9.-]+(:\d+)?$")
    rtc_host: str | None = Field(None, pattern=r"^wss?://[A-Za-z0-9.:\[\]/_-]+$")
    rtc_region: Literal["eu", "us-central", "us-east", "us-west", "ca-central", "apac", "south-asia"] | None = None
    propagation_seconds: float = Field(5.0, ge=0, le=60)

    # Secrets, as files
    telnyx_api_key_file: str | None = Field(None, validation_alias="TELNYX_API_KEY_FILE")
    issuer_pem_file: str | None = None
    issuer_secret_file: str | None = None
    database_url_file: str | None = None
    tag_key_file: str | None = None
    redis_url_file: str | None = None
    egress_proxy_file: str | None = None

    # Identity: one issuer here, or several in a file
    config: str | None = None
    issuer: str | None = None
    audience: Words = frozenset()
    jwks_url: str | None = None
    discovery_url: str | None = None
    issuer_ca_file: str | None = None
    issuer_allow_http: bool | None = None
    issuer_use_proxy: bool | None = None
    issuer_header: str | None = None
    issuer_signer: str | None = None
    issuer_pem: SecretStr | None = None
    issuer_secret: SecretStr | None = None
    algorithms: Words | None = None
    subject_claim: str | None = None
    scope_claim: str | None = None
    audience_claims: Annotated[tuple[str, ...] | None, NoDecode] = None
    required_claims: Annotated[dict[str, Any] | None, NoDecode] = None
    token_kind: str | None = None
    allowed_foreign_claims: Words | None = None
    tenants: Words | None = None
    takes_tokens_without_iss: bool | None = None
    subject_type: str | None = None
    secret_encoding: str | None = None
    max_token_bytes: int | None = None
    required_scopes: Words | None = None
    token_types: Words | None = None
    leeway_seconds: int | None = None
    max_token_age_seconds: int | None = None
    logout_audience: Words | None = None

    # Policy
    credential_ttl_seconds: int = 86_400
    mobile_credential_ttl_seconds: int = 30 * 86_400
    max_devices: int = Field(10, ge=1, le=900)
    at_device_limit: DeviceLimitAction | None = None
    sip_password: bool = False
    warm_pool_size: int = Field(0, ge=0, le=500)

    # Ledger
    database_url: SecretStr = SecretStr("sqlite:///.dialtone/ledger.db")
    namespace: str = Field("dialtone", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
    tag_key: SecretStr | None = None
    retention_days: float = Field(30.0, ge=1 / 1440, le=3650)

    # Audit
    audit_required: bool = False
    audit_retention_days: float = Field(30.0, ge=1 / 1440, le=3650)

    # Limits
    limit_user: str = "12000/minute"
    limit_issuer: str = "none"
    limit_failures: str = "6000/minute"
    redis_url: SecretStr | None = None

    # Outbound connections
    egress_proxy: SecretStr | None = None

    # Serving
    host: str = "127.0.0.1"
    port: int = Field(8010, ge=0, le=65535)
    root_path: str = Field("", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    cors_origins: Words = frozenset()
    cors_headers: Words = frozenset()
    trusted_proxies: str = "127.0.0.1"
    docs: bool = True
    ops_page: bool = True
    login_cache_mb: int = Field(256, ge=1, le=65_536)
    request_timeout_seconds: float = Field(10.0, gt=0, le=60)
    drain_seconds: float = Field(0.0, ge=0, le=60)
    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    shutdown_timeout_seconds: int = Field(20, ge=1, le=300)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    tracing: bool = False

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Read the environment and the file in DIALTONE_ENV_FILE (default `.env`). Raises SettingsError."""
        unknown = sorted(name for name in os.environ if name.startswith("DIALTONE_") and name not in known_variables())
        if unknown:
            raise SettingsError(f"{unknown[0]} is not a setting of Dialtone; .env.example lists all settings")
        given.setdefault("_env_file", os.environ.get("DIALTONE_ENV_FILE", ".env"))
        try:
            settings = cls(**given)
        except ValidationError as error:
            raise SettingsError(_one_line(error)) from None
        settings._env_file = given["_env_file"]
        settings.identity()
        return settings

    def again(self) -> "Settings":
        """Read the same sources again. Raises SettingsError."""
        return Settings.load(_env_file=self._env_file)

    def identity(self) -> ResolvedConfig:
        """Issuers, their keys and the policy, from dialtone.toml or from variables. Raises SettingsError."""
        try:
            if self.config is not None:
                return self._from_file(self.config)
            return self._from_variables()
        except ConfigError as error:
            raise SettingsError(str(error)) from None

    def _from_file(self, path: str) -> ResolvedConfig:
        clash = next((name for name in ISSUER_FIELDS if getattr(self, name) not in (None, frozenset())), None)
        if clash is not None:
            raise SettingsError(
                f"{variable_of(clash)} and DIALTONE_CONFIG are both set; keep one, because the file names the issuers"
            )
        variables = dotenv_values(self._env_file) if self._env_file else {}
        try:
            return resolve(read(path), self.allowance, lambda name: os.environ.get(name) or variables.get(name))
        except FieldError as fault:
            raise SettingsError(f"{path}: {fault.field}: {fault}") from None

    def _from_variables(self) -> ResolvedConfig:
        """The configuration of the single issuer in the environment. Errors name the variable."""
        for name in () if self.provider else ("issuer", "audience"):
            if not getattr(self, name) and (name == "issuer" or not self.required_claims):
                raise SettingsError(f"{variable_of(name)} is not set; .env.example describes it")
        values = {field: getattr(self, name) for name, field in ISSUER_FIELDS.items()}
        wanted = {field: value for field, value in values.items() if value not in (None, frozenset())}
        if self.issuer_pem is not None:
            # A PEM in an environment variable may have literal \n as line ends.
            wanted["pem"] = self.issuer_pem.get_secret_value().replace("\\n", "\n")
        if self.tenants == frozenset({"any"}):
            wanted["tenants"] = "any"
        if self.issuer_secret is not None:
            wanted["secret_env"] = variable_of("issuer_secret")
        try:
            issuer = IssuerTable.model_validate(wanted)
            secret = None if self.issuer_secret is None else self.issuer_secret.get_secret_value()
            return resolve(ConfigFile(issuers=(issuer,)), self.allowance, lambda _: secret)
        except ValidationError as error:
            place, message = first_fault(error)
        except FieldError as fault:
            place, message = fault.field, str(fault)
        field = re.split(r"[.\[]", place.removeprefix("issuers[0]."))[0]
        name = next(name for name, own in ISSUER_FIELDS.items() if own == field)
        raise SettingsError(f"{variable_of(name)}: {message}")

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Clean the values, and read secrets from the files that `<NAME>_FILE` names."""
        values = cleaned(values, may_have_quotes=("issuer_secret", "tag_key"))
        for name in _SECRETS:
            variable = variable_of(name)
            path = values.get(f"{name}_file") or values.get(f"{variable}_FILE")
            if not path:
                continue
            if variable in values or name in values:
                raise ValueError(f"{variable} and {variable}_FILE are both set; keep one")
            try:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"{variable}_FILE names a file that cannot be read") from None
        return values

    @field_validator(
        "audience",
        "algorithms",
        "required_scopes",
        "token_types",
        "logout_audience",
        "cors_origins",
        "cors_headers",
        "audience_claims",
        "allowed_foreign_claims",
        "tenants",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        """The words in their order, which matters only for audience_claims."""
        return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value

    @field_validator("required_claims", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            found = 0
        if found is not None and not isinstance(found, dict):
            raise ValueError('must be a JSON object, such as {"token_use": "access"}')
        return found

    @field_validator("credential_ttl_seconds", "mobile_credential_ttl_seconds")
    @classmethod
    def _check_ttl(cls, value: int) -> int:
        if not MIN_TTL <= timedelta(seconds=value) <= MAX_TTL:
            raise ValueError("must be between 60 seconds and 90 days")
        return value

    @field_validator("telnyx_base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not is_safe_url(value):
            raise ValueError("must be an https URL (or http to localhost), without user, password or fragment")
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, value: SecretStr) -> SecretStr:
        database_url(value.get_secret_value())
        return value

    @field_validator("limit_user", "limit_issuer", "limit_failures")
    @classmethod
    def _check_limit(cls, value: str) -> str:
        try:
            parse_rate_limit(value)
        except ValueError:
            raise ValueError("must be a rate such as 300/minute or 5/second, or none") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme not in ("redis", "rediss"):
            raise ValueError("must be redis://HOST:PORT/DATABASE or rediss://...")
        return value

    @field_validator("egress_proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_proxy_url(value.get_secret_value()):
            raise ValueError(
                "must be http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host if the proxy "
                "requires it; write special characters of the password in percent-encoding"
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: frozenset[str]) -> frozenset[str]:
        for origin in sorted(value):
            check_origin(origin)
        return value

    @field_validator("cors_headers")
    @classmethod
    def _check_headers(cls, value: frozenset[str]) -> frozenset[str]:
        for name in sorted(value):
            check_header(name)
        return value

    @field_validator("tracing")
    @classmethod
    def _check_tracing(cls, value: bool) -> bool:
        if value and not tracing.is_installed():
            raise ValueError("OpenTelemetry is not installed; see docs/observability.md#tracing")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        is_plain_http = urlsplit(self.telnyx_base_url).scheme == "http"
        if is_plain_http and _REAL_API_KEY.match(self.telnyx_api_key.get_secret_value()):
            raise ValueError("TELNYX_API_KEY looks like a real key, but TELNYX_BASE_URL is plain http; use https")
        if not self.telnyx_api_key.get_secret_value().isprintable() or " " in self.telnyx_api_key.get_secret_value():
            raise ValueError("TELNYX_API_KEY contains invalid characters")
        return self

    @property
    def proxy_url(self) -> str | None:
        """The egress proxy. A secret, because it may contain a password."""
        return None if self.egress_proxy is None else self.egress_proxy.get_secret_value()

    @property
    def is_sandboxed(self) -> bool:
        """True if Telnyx is the sandbox on this machine."""
        return is_loopback(urlsplit(self.telnyx_base_url).hostname or "")

    @property
    def allowance(self) -> Allowance:
        """The default for values that rules omit, and for users if there is no policy."""
        mobile = timedelta(seconds=self.mobile_credential_ttl_seconds)
        browser = timedelta(seconds=self.credential_ttl_seconds)
        return Allowance(
            connection_id=self.telnyx_connection_id,
            ttl={Platform.BROWSER: browser, Platform.IOS: mobile, Platform.ANDROID: mobile},
            grants=frozenset(Grant) if self.sip_password else frozenset({Grant.LOGIN_TOKEN}),
            max_devices=self.max_devices,
            at_device_limit=self.at_device_limit,
            admin=True,  # without a policy, the scope alone decides
        )


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return str(Settings.model_fields[name].validation_alias or f"DIALTONE_{name.upper()}")


def known_variables() -> frozenset[str]:
    """The names of all environment variables that Dialtone reads."""
    return frozenset({variable_of(name) for name in Settings.model_fields} | set(_ELSEWHERE))


def _one_line(error: ValidationError) -> str:
    """The first fault in one line: the variable and the message, without the value."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    variable = variable_of(name) if name in Settings.model_fields else name
    if fault["type"] == "missing":
        return f"{variable} is not set; .env.example describes it"
    return f"{variable}: {message}"

"""Settings: every environment variable that Dialtone reads, checked before the service listens.

`.env.example` describes all of them. An invalid or contradictory setting ends the process with one line that names the
variable and never shows a value.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.adapters.addresses import is_loopback
from app.config import known_issuers
from app.config.config_warning import ConfigWarning
from app.config.faults import first_fault, message_of
from app.config.file import ConfigError, ConfigFile, IssuerTable, ResolvedConfig, read, resolve
from app.config.grants import load_grant_keys
from app.config.issuer_variables import ISSUER_FIELDS, LIST_VARIABLES, VALUE_VARIABLES, ProviderVariables
from app.config.listeners import ListenerSettings
from app.config.rule_tables import Region
from app.config.secret_settings import FREE_TEXT, SECRETS, SecretSettings
from app.config.setting_types import (
    ApiUrl,
    DatabaseUrl,
    HeaderNames,
    Origins,
    ProxyUrl,
    Tracing,
    TtlSeconds,
    WarmPoolSize,
    Words,
)
from app.config.shared_state import SharedStateSettings
from app.config.tables import FieldError
from app.config.text_cleaning import words
from app.config.variables import VariableError, Variables, read_secret
from app.vending import strict_json
from app.vending.grants.models import MAX_GRANT_TTL
from app.vending.models import LoginMethod, Platform
from app.vending.policy import Allowance, DeviceLimitAction

_REAL_API_KEY = re.compile(r"KEY[0-9A-F]{16,}_\w+")
"""The format of keys from the Telnyx portal: KEY, upper-case hex, an underscore, and more characters."""

_ELSEWHERE = ("ENV_FILE", "URL", "TOKEN_FILE", "SANDBOX_PORT", "IDENTITY_PORT", "PAGE_PORT")
"""Variables that are read elsewhere: the path of the settings file, remote mode, and the ports of `make dev`."""

_LISTS = (
    *sorted(LIST_VARIABLES),
    "cors_origins",
    "cors_headers",
    "host",
    "admin_host",
    "trusted_proxies",
)
"""Settings of several values, which commas or white space separate."""


class SettingsError(Exception):
    """An invalid setting. The message is one line with the variable and the fix, without values."""


class Settings(ListenerSettings, ProviderVariables, SecretSettings, SharedStateSettings, BaseSettings):
    """The configuration of one process. `TELNYX_*` are Telnyx's own names; all others begin with `DIALTONE_`."""

    model_config = SettingsConfigDict(
        extra="ignore", hide_input_in_errors=True, validate_default=True, populate_by_name=True
    )

    _variables: Variables = PrivateAttr(default_factory=lambda: Variables({}, {}, ""))
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    # Telnyx
    telnyx_connection_id: str = Field(validation_alias="TELNYX_CONNECTION_ID", pattern=r"^[0-9]{1,20}$")
    telnyx_base_url: ApiUrl = Field("https://api.telnyx.com/v2", validation_alias="TELNYX_BASE_URL")
    telnyx_call_seconds: float = Field(5.0, validation_alias="TELNYX_CALL_SECONDS", gt=0, le=60)
    sip_domain: str = Field("sip.telnyx.com", pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$")
    rtc_host: str | None = Field(None, pattern=r"^wss?://[A-Za-z0-9.:\[\]/_-]+$")
    rtc_region: Region | None = None
    propagation_seconds: float = Field(5.0, ge=0, le=60)

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
    algorithms: Words | None = None
    subject_claim: str | None = None
    scope_claim: str | None = None
    audience_claims: tuple[str, ...] | None = None
    required_claims: dict[str, Any] | None = None
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
    credential_ttl_seconds: TtlSeconds = 86_400
    mobile_credential_ttl_seconds: TtlSeconds = 30 * 86_400
    max_devices: int = Field(10, ge=1, le=900)
    at_device_limit: DeviceLimitAction | None = None
    sip_password: bool = False
    warm_pool_size: WarmPoolSize = None
    grant_ttl_seconds: int = Field(300, ge=30, le=int(MAX_GRANT_TTL.total_seconds()))

    # Ledger
    database_url: DatabaseUrl = SecretStr("sqlite:///.dialtone/ledger.db")
    namespace: str = Field("dialtone", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
    retention_days: float = Field(30.0, ge=1 / 1440, le=3650)

    # Audit
    audit_required: bool = False
    audit_retention_days: float = Field(30.0, ge=1 / 1440, le=3650)

    # Outbound connections
    egress_proxy: ProxyUrl | None = None

    # Serving
    workers: int = Field(1, ge=1, le=64)
    root_path: str = Field("", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    cors_origins: Origins = frozenset()
    cors_headers: HeaderNames = frozenset()
    docs: bool = True
    ops_page: bool = True
    request_timeout_seconds: float = Field(10.0, gt=0, le=60)
    drain_seconds: float = Field(0.0, ge=0, le=60)
    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    shutdown_timeout_seconds: int = Field(20, ge=1, le=300)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    tracing: Tracing = False

    @classmethod
    def load(cls, variables: Variables | None = None, /, **given: Any) -> "Settings":
        """The variables are those of the environment and the env file by default. `given` replaces them.

        Raises SettingsError.
        """
        try:
            variables = Variables.read() if variables is None else variables
            variables.check_names(known_variables())
            values, origins = _collected(variables, given)
        except VariableError as error:
            raise SettingsError(str(error)) from None
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise SettingsError(_one_line(error, variables)) from None
        settings._variables, settings._origins = variables, origins
        settings.identity()
        return settings

    def reread(self) -> "Settings":
        """Read the same sources again. Raises SettingsError."""
        return Settings.load()

    def origin(self, name: str) -> str:
        """Where the value of a setting comes from: `default`, `environment` or the path of a file."""
        return self._origins.get(name, "default")

    def warnings(self) -> list[ConfigWarning]:
        """Settings that are valid but probably wrong. Raises SettingsError."""
        found = self._variables.warnings(known_variables())
        for number, (issuer, _) in enumerate(self.identity().issuers):
            found += [
                warning._replace(place=self._place(number, warning.place))
                for warning in known_issuers.find_warnings(issuer)
            ]
        return found

    def _place(self, number: int, field: str) -> str:
        """Where a field of an issuer is: its path in the file, or its variable."""
        if self.config is not None:
            return f"{self.config}: issuers[{number}].{field}"
        name = next(name for name, own in ISSUER_FIELDS.items() if own == field)
        return variable_of("provider" if self.provider and name not in self._origins else name)

    def identity(self) -> ResolvedConfig:
        """Issuers, their keys and the policy, from dialtone.toml or from variables. Raises SettingsError."""
        try:
            found = self._from_variables() if self.config is None else self._from_file(self.config)
        except ConfigError as error:
            raise SettingsError(str(error)) from None
        try:
            keys = load_grant_keys(self.grant_key, self.other_grant_key, self.namespace, found.policy)
        except FieldError as fault:
            raise SettingsError(f"{variable_of(fault.field)}: {fault}") from None
        return replace(found, grant_keys=keys)

    def _from_file(self, path: str) -> ResolvedConfig:
        clash = next((name for name in ISSUER_FIELDS if getattr(self, name) not in (None, frozenset())), None)
        if clash is not None:
            raise SettingsError(
                f"{variable_of(clash)} and DIALTONE_CONFIG are both set; keep one, because the file names the issuers"
            )
        try:
            return resolve(read(path), self.allowance, self._secret)
        except FieldError as fault:
            raise SettingsError(f"{path}: {fault.field}: {fault}") from None

    def _secret(self, name: str) -> str | None:
        """The secret in a variable that dialtone.toml names."""
        try:
            found = self._variables.get(name, is_free_text=True)
        except VariableError as error:
            raise FieldError("secret_env", str(error)) from None
        return None if found is None else found.text

    def _from_variables(self) -> ResolvedConfig:
        """The configuration of the single issuer in the environment. Errors name the variable."""
        for name in () if self.provider else ("issuer", "audience"):
            if not getattr(self, name) and (name == "issuer" or not self.required_claims):
                missing = _missing(variable_of(name), self._variables)
                others = "; or set DIALTONE_PROVIDER or DIALTONE_CONFIG instead" if name == "issuer" else ""
                raise SettingsError(f"{missing}{others}")
        values = {field: getattr(self, name) for name, field in ISSUER_FIELDS.items()}
        wanted = {field: value for field, value in values.items() if value not in (None, frozenset())}
        if self.issuer_pem is not None:
            wanted["pem"] = self.issuer_pem.get_secret_value()
        if self.tenants == frozenset({"any"}):
            wanted["tenants"] = "any"
        secrets = {
            variable_of(name): secret.get_secret_value()
            for name in ("issuer_secret", "previous_issuer_secret")
            if (secret := getattr(self, name)) is not None
        }
        wanted |= {field: name for field, name in ISSUER_VARIABLES.items() if name in secrets}
        try:
            issuer = IssuerTable.model_validate(wanted)
            return resolve(ConfigFile(issuers=(issuer,)), self.allowance, secrets.get)
        except ValidationError as error:
            place, message = first_fault(error)
        except FieldError as fault:
            place, message = fault.field, str(fault)
        field = re.split(r"[.\[]", place.removeprefix("issuers[0]."))[0]
        raise SettingsError(f"{ISSUER_VARIABLES[field]}: {message}")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only `load` passes values: it cleans each value and records its source."""
        return (init_settings,)

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """The values in their order, which matters only for audience_claims."""
        return words(value) if isinstance(value, str) else value

    @field_validator("required_claims", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            found = strict_json.parse(value.encode("utf-8", "replace")) if isinstance(value, str) else value
        except strict_json.InvalidJson as error:
            if error.fault is strict_json.JsonFault.MEMBER_TWICE:
                raise ValueError("has a claim twice; keep one condition for each") from None
            found = 0
        if found is not None and not isinstance(found, dict):
            raise ValueError('must be a JSON object, such as {"token_use": "access"}')
        return found

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        self.check_rotation()
        is_plain_http = urlsplit(self.telnyx_base_url).scheme == "http"
        if is_plain_http and _REAL_API_KEY.match(self.telnyx_api_key.get_secret_value()):
            raise ValueError("TELNYX_API_KEY looks like a real key, but TELNYX_BASE_URL is plain http; use https")
        if re.fullmatch(r"[!-~]+", self.telnyx_api_key.get_secret_value()) is None:
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
            login_methods=frozenset(LoginMethod) if self.sip_password else frozenset({LoginMethod.LOGIN_TOKEN}),
            max_devices=self.max_devices,
            at_device_limit=self.at_device_limit,
            admin=True,  # without a policy, the scope alone decides
        )


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return str(Settings.model_fields[name].validation_alias or f"DIALTONE_{name.upper()}")


ISSUER_VARIABLES: Mapping[str, str] = MappingProxyType(
    {field: variable_of(name) for name, field in ISSUER_FIELDS.items()}
    | {
        "pem_file": variable_of("issuer_pem_file"),
        "secret_env": variable_of("issuer_secret"),
        "secret_file": variable_of("issuer_secret_file"),
        "previous_secret_file": variable_of("previous_issuer_secret_file"),
    }
)
"""The environment variable of each setting in an issuer of dialtone.toml."""


def known_variables() -> frozenset[str]:
    """The names of all environment variables that Dialtone reads."""
    return frozenset({*map(variable_of, Settings.model_fields), *(f"DIALTONE_{name}" for name in _ELSEWHERE)})


def _collected(variables: Variables, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of the settings, and where each comes from. Raises VariableError."""
    values, origins = dict(given), dict.fromkeys(given, "argument")
    for name in Settings.model_fields:
        if name in given:
            continue
        found = variables.get(
            variable_of(name), is_list=name in _LISTS or name in VALUE_VARIABLES, is_free_text=name in FREE_TEXT
        )
        if found is not None:
            values[name], origins[name] = found
    for name in SECRETS:
        path, variable = values.get(f"{name}_file"), variable_of(name)
        if not path:
            continue
        if name in values:
            raise VariableError(f"{variable} and {variable}_FILE are both set; keep one")
        values[name] = read_secret(variable, path, is_free_text=name in FREE_TEXT)
        origins[name] = path
    return values, origins


def _one_line(error: ValidationError, variables: Variables) -> str:
    """The first fault in one line: the variable and the message, without the value."""
    fault = error.errors(include_input=False, include_url=False)[0]
    message = message_of(fault)
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    variable = variable_of(name) if name in Settings.model_fields else name
    if fault["type"] == "missing":
        return _missing(variable, variables)
    return f"{variable}: {message}"


def _missing(variable: str, variables: Variables) -> str:
    similar = variables.misspelt(variable, known_variables())
    return f"{variable} is not set{f', but {similar} is' if similar else ''}; .env.example describes it"

"""The models of dialtone.toml: issuers and the policy. The whole file is checked before any of it takes effect.

`dialtone.schema.json` is generated from these models, so that editors can complete the file. The file contains no
secrets: it names the environment variable or the file of a secret. `app.config.settings` builds the same models from
environment variables.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from app.adapters.identity.key_sets import is_safe_url
from app.adapters.identity.keys import HMAC_ALGORITHMS, PUBLIC_KEY_ALGORITHMS, KeySet, from_pem, from_secret
from app.vending.models import Grant, Platform
from app.vending.policy import Allowance, ClaimCondition, DeviceLimitAction, Policy, PolicyMode, Rule, Scalar
from app.vending.telephony.durations import MAX_TTL, MIN_TTL

SecretOf = Callable[[str], str | None]
"""The value of an environment variable; None if it is not set."""

MAX_FILE_BYTES = 1024 * 1024


class ConfigError(Exception):
    """A fault of the configuration file. The message is one line with the place and the fix, without secrets."""


class FieldError(ValueError):
    """A fault of one field that a check of several fields found."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class _Table(BaseModel):
    """Base of the tables. Rejects unknown keys, so that a misspelt key is not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Words = frozenset[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^\S+$")]]
ConnectionId = Annotated[str, Field(pattern=r"^\d{1,20}$")]
Ttl = Annotated[int, Field(strict=True, ge=int(MIN_TTL.total_seconds()), le=int(MAX_TTL.total_seconds()))]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _safe_url(url: str) -> str:
    if not is_safe_url(url):
        raise ValueError("must be an https URL (or http to localhost), without user, password or fragment")
    return url


class IssuerTable(_Table):
    """One identity provider, and how its tokens are verified. Without a key source, keys are discovered."""

    name: Name | None = Field(None, description="The name that rules use. Default: the issuer itself.")
    issuer: str = Field(min_length=1, max_length=2048, description="The exact `iss` of its tokens.")
    audiences: Words = Field(min_length=1, description="Accepted `aud` values. A token needs one of them.")
    algorithms: Words = Field(
        frozenset(),
        description="Allowed `alg` headers. Default: RS256 and ES256, or HS256 with a shared secret.",
        json_schema_extra={"items": {"enum": [*sorted(PUBLIC_KEY_ALGORITHMS | HMAC_ALGORITHMS)]}},
    )
    jwks_url: Annotated[str, AfterValidator(_safe_url)] | None = Field(None, description="The URL of its key set.")
    pem: str | None = Field(None, description="Its public key or certificate in PEM.")
    pem_file: str | None = Field(None, description="The file with the public key or certificate.")
    secret_env: Variable | None = Field(
        None, description="The environment variable with the shared secret, at least 32 bytes (HS256/384/512)."
    )
    secret_file: str | None = Field(None, description="The file with the shared secret.")
    subject_claim: str = Field("sub", min_length=1, description="The claim that names the user. `sub` is required too.")
    scope_claim: str = Field("scope", min_length=1, description="The claim with the scopes.")
    scope_list: bool = Field(False, description="Accept a list of scopes too. A string is always accepted.")
    required_scopes: Words = Field(frozenset(), description="Scopes that every request of a user requires.")
    token_types: Words = Field(
        frozenset({"jwt", "at+jwt"}), description="Allowed `typ` headers. A token without `typ` is allowed too."
    )
    leeway_seconds: int = Field(30, ge=0, le=300, description="Allowed clock difference in seconds.")
    max_token_age_seconds: int | None = Field(
        None, gt=0, description="Reject tokens issued longer ago than this, even if they have not expired."
    )
    logout_audiences: Words = Field(
        frozenset(), description="Client ids that OIDC logout tokens may name. Default: the audiences."
    )

    @field_validator("token_types")
    @classmethod
    def _lower(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(word.lower() for word in value)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        sources = [self.jwks_url, self.pem, self.pem_file, self.secret_env, self.secret_file]
        if sum(source is not None for source in sources) > 1:
            raise FieldError("issuer", "jwks_url, PEM and shared secret exclude each other; keep one")
        if not any(sources) and not is_safe_url(self.issuer):
            raise FieldError(
                "issuer", "is not an https URL, so keys cannot be discovered; set jwks_url, a PEM or a shared secret"
            )
        possible = HMAC_ALGORITHMS if self.is_symmetric else PUBLIC_KEY_ALGORITHMS
        if not self.algorithms <= possible:
            raise FieldError("algorithms", f"must be among {', '.join(sorted(possible))} with this key source")
        return self

    @property
    def is_symmetric(self) -> bool:
        return self.secret_env is not None or self.secret_file is not None

    @property
    def effective_algorithms(self) -> frozenset[str]:
        """The configured algorithms, or the key source's default."""
        return self.algorithms or (frozenset({"HS256"}) if self.is_symmetric else frozenset({"RS256", "ES256"}))

    def fixed_keys(self, secret_of: SecretOf) -> KeySet | None:
        """The keys from the configuration; None if they are fetched. Raises FieldError."""
        if self.secret_env is not None:
            secret = secret_of(self.secret_env)
            if not secret:
                raise FieldError("secret_env", f"{self.secret_env} is not set in the environment")
            return _keys("secret_env", from_secret, secret.encode(), self.effective_algorithms)
        if self.secret_file is not None:
            secret = _text("secret_file", self.secret_file).strip()
            return _keys("secret_file", from_secret, secret.encode(), self.effective_algorithms)
        if self.pem_file is not None:
            return _keys("pem_file", from_pem, _text("pem_file", self.pem_file), self.effective_algorithms)
        if self.pem is not None:
            return _keys("pem", from_pem, self.pem, self.effective_algorithms)
        return None


class OneOf(_Table):
    one_of: tuple[StrictStr | StrictBool | StrictInt, ...] = Field(min_length=1)


class Glob(_Table):
    glob: str = Field(min_length=1, max_length=256)


ClaimTable = StrictStr | StrictBool | StrictInt | OneOf | Glob


class TtlTable(_Table):
    """Lifetimes of a credential by platform, in seconds."""

    browser: Ttl | None = None
    ios: Ttl | None = None
    android: Ttl | None = None


class RuleTable(_Table):
    """One rule. Omitted values default to the service's settings."""

    name: Name = Field(description="The name in the log and in `dialtone policy test`.")
    effect: Literal["allow", "deny"] = "allow"
    mode: PolicyMode = Field(
        PolicyMode.ENFORCE, description="`shadow`: the rule decides nothing; its decision is only logged."
    )
    issuers: frozenset[str] | None = Field(None, min_length=1, description="Names of issuers. Default: all.")
    claims: dict[str, ClaimTable] = Field(
        default_factory=dict,
        description=(
            'Conditions on claims, all required: a value, `{ one_of = [...] }` or `{ glob = "..." }` with `*` and `?`. '
            "For a list, one matching element suffices. A name such as `/realm_access/roles` is a JSON Pointer."
        ),
    )
    scopes: Words = Field(frozenset(), description="Scopes that the token must have for the rule to match.")
    connection_id: ConnectionId | None = Field(None, description="The id of the Telnyx credential connection.")
    ttl_seconds: TtlTable = TtlTable()
    grants: frozenset[Grant] | None = Field(None, description="Allowed grants. Empty: no logins.")
    max_devices: int | None = Field(None, ge=1, le=900, description="Maximum number of live devices of one user.")
    at_device_limit: DeviceLimitAction | None = Field(
        None,
        description=(
            "`reject` the next device, or `evict_oldest`: log out the least recently used device. Default: browsers "
            "evict the least recently used browser, and phones are rejected."
        ),
    )
    push: bool = Field(True, description="Allow push credentials to be registered.")
    push_scopes: Words = Field(frozenset(), description="Scopes that registering a push credential requires.")
    admin: bool = Field(False, description="Allow operators' requests for tokens with the scope dialtone:admin.")

    @field_validator("claims", mode="before")
    @classmethod
    def _check_claims(cls, value: Any) -> Any:
        """Report one fault. pydantic would report one for every branch of the union."""
        for name, wanted in value.items() if isinstance(value, dict) else ():
            is_test = isinstance(wanted, dict) and len(wanted) == 1 and set(wanted) <= {"one_of", "glob"}
            if not name or not (is_test or isinstance(wanted, str | bool | int)):
                raise ValueError(
                    'a claim must be a string, a number, true, false, { one_of = [...] } or { glob = "..." }'
                )
        return value

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        given = self.model_fields_set - {"name", "effect", "mode", "issuers", "claims", "scopes"}
        if self.effect == "deny" and given:
            raise FieldError(min(given), "has no effect in a rule that denies; remove it")
        return self

    def as_rule(self, default: Allowance, issuers: Mapping[str, str]) -> Rule:
        """The domain's rule, with defaults for omitted values. Raises FieldError for an unknown issuer."""
        for name in sorted(self.issuers or ()):
            if name not in issuers:
                raise FieldError("issuers", f"{name!r} is not the name of a configured issuer")
        return Rule(
            name=self.name,
            allowance=None if self.effect == "deny" else self._allowance(default),
            issuers=None if self.issuers is None else frozenset(issuers[name] for name in self.issuers),
            claims=tuple(_condition(claim, wanted) for claim, wanted in self.claims.items()),
            scopes=self.scopes,
            mode=self.mode,
        )

    def _allowance(self, default: Allowance) -> Allowance:
        ttl = {platform: getattr(self.ttl_seconds, platform) for platform in Platform}
        return Allowance(
            connection_id=self.connection_id or default.connection_id,
            ttl={platform: timedelta(seconds=own) if own else default.ttl[platform] for platform, own in ttl.items()},
            grants=default.grants if self.grants is None else self.grants,
            max_devices=self.max_devices or default.max_devices,
            at_device_limit=self.at_device_limit or default.at_device_limit,
            push=self.push,
            push_scopes=self.push_scopes,
            admin=self.admin,
        )


class PolicyTable(_Table):
    """The policy. The first matching rule decides; users without a matching rule are denied."""

    mode: PolicyMode = Field(
        PolicyMode.ENFORCE,
        description="`shadow`: every user of a configured issuer is allowed; the policy's decision is only logged.",
    )
    rules: tuple[RuleTable, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise FieldError("rules", "two rules have the same name")
        return self

    def as_policy(self, default: Allowance, issuers: tuple[IssuerTable, ...]) -> Policy:
        by_name = {issuer.name or issuer.issuer: issuer.issuer for issuer in issuers}
        rules = []
        for number, rule in enumerate(self.rules):
            try:
                rules.append(rule.as_rule(default, by_name))
            except FieldError as fault:
                raise FieldError(f"policy.rules[{number}].{fault.field}", str(fault)) from None
        required = {issuer.issuer: issuer.required_scopes for issuer in issuers}
        return Policy(default, tuple(rules), self.mode, required)


class ConfigFile(_Table):
    """Issuers and the policy of Dialtone. Settings of the process are environment variables."""

    model_config = ConfigDict(
        title="dialtone.toml", json_schema_extra={"$schema": "https://json-schema.org/draft/2020-12/schema"}
    )

    issuers: tuple[IssuerTable, ...] = Field(min_length=1, max_length=100)
    policy: PolicyTable = PolicyTable()

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        for field in ("issuer", "name"):
            given = [value for issuer in self.issuers if (value := getattr(issuer, field)) is not None]
            if len(set(given)) != len(given):
                raise FieldError("issuers", f"two issuers have the same {field}")
        return self


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A checked configuration, with loaded keys and completed rules."""

    issuers: tuple[tuple[IssuerTable, KeySet | None], ...]
    """The issuers, each with its keys from the configuration, or None if the keys are fetched."""
    policy: Policy


def resolve(configuration: ConfigFile, default: Allowance, secret_of: SecretOf) -> ResolvedConfig:
    """Load keys and complete the rules. Raises FieldError, whose field is a path into the file."""
    issuers = []
    for number, issuer in enumerate(configuration.issuers):
        try:
            issuers.append((issuer, issuer.fixed_keys(secret_of)))
        except FieldError as fault:
            raise FieldError(f"issuers[{number}].{fault.field}", str(fault)) from None
    return ResolvedConfig(tuple(issuers), configuration.policy.as_policy(default, configuration.issuers))


def read(path: str) -> ConfigFile:
    """Read and check the file. Raises ConfigError with the file's path, the place and the fault."""
    try:
        raw = Path(path).read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than 1 MB")
        return ConfigFile.model_validate(tomllib.loads(raw.decode("utf-8")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        place, message = first_fault(error)
        raise ConfigError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from None


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The place (`issuers[0].algorithms`) and the message of the first fault, without the value."""
    fault = error.errors(include_input=False, include_url=False)[0]
    loc = [part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        place = f"{place}.{cause.field}".lstrip(".")
    if fault["type"] == "extra_forbidden":
        return place, "unknown setting"
    if fault["type"] == "missing":
        return place, "is required"
    return place, fault["msg"].removeprefix("Value error, ")


def _condition(claim: str, wanted: Scalar | OneOf | Glob) -> ClaimCondition:
    match wanted:
        case OneOf():
            return ClaimCondition(claim, one_of=wanted.one_of)
        case Glob():
            return ClaimCondition(claim, glob=wanted.glob)
        case _:
            return ClaimCondition(claim, one_of=(wanted,))


def _text(field: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise FieldError(field, "names a file that cannot be read") from None


def _keys(
    field: str, make: Callable[[Any, frozenset[str]], KeySet], material: Any, algorithms: frozenset[str]
) -> KeySet:
    try:
        return make(material, algorithms)
    except ValueError as error:
        raise FieldError(field, str(error)) from None

"""The models of dialtone.toml: issuers, the policy and events. The whole file is checked before any of it takes effect.

`dialtone.schema.json` is generated from these models, so that editors can complete the file. The file contains no
secrets: it names the environment variable or the file of a secret. `app.config.settings` builds the same models from
environment variables.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from app.adapters.http_client import checked_ca_pem
from app.adapters.identity.grant_keys import GrantKeys
from app.adapters.identity.keys import (
    HMAC_ALGORITHMS,
    PUBLIC_KEY_ALGORITHMS,
    KeySet,
    checked_secret,
    from_pem,
    from_secret,
)
from app.config import grants, known_issuers, token_claims
from app.config.events import EventsTable
from app.config.faults import first_fault
from app.config.key_access import find_fault
from app.config.rule_tables import Admin, AdminTable, LeaseAge, RtcTable, TtlTable, visibility_of
from app.config.secret_references import SecretOf, load, load_secret, read_text
from app.config.sign_in import OPS_SCOPES, SCOPE, find_sign_in_fault
from app.config.tables import CLAIM_KINDS, ClaimTables, FieldError, Table, Words, conditions
from app.config.token_claims import SecretEncoding, TokenKind, TokenTable
from app.vending.events.endpoints import WebhookEndpoint
from app.vending.grants.models import GrantKind
from app.vending.models import LoginMethod, Platform
from app.vending.outbound import OutboundRequirement
from app.vending.policy import Allowance, DeviceLimitAction, Policy, PolicyMode, Rule
from app.vending.visibility import Visibility

MAX_FILE_BYTES = 1024 * 1024


class ConfigError(Exception):
    """A fault of the configuration file. The message is one line with the place and the fix, without secrets."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
ConnectionId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class IssuerTable(TokenTable):
    """One identity provider, and how its tokens are verified. Without a key source, keys are discovered."""

    name: Name | None = Field(None, description="The name that rules use. Default: the issuer itself.")
    algorithms: Words = Field(
        frozenset(),
        description="Allowed `alg` headers. Default: RS256 and ES256, or HS256 with a shared secret.",
        json_schema_extra={"items": {"enum": [*sorted(PUBLIC_KEY_ALGORITHMS | HMAC_ALGORITHMS)]}},
    )
    jwks_url: str | None = Field(None, description="The URL of its key set.")
    discovery_url: str | None = Field(
        None, description="The URL of its discovery document. Default: below the issuer, at the usual path."
    )
    pem: str | None = Field(None, description="Its public key or certificate in PEM.")
    pem_file: str | None = Field(None, description="The file with the public key or certificate.")
    secret_env: Variable | None = Field(
        None, description="The environment variable with the shared secret, at least 32 bytes (HS256/384/512)."
    )
    secret_file: str | None = Field(None, description="The file with the shared secret.")
    previous_secret_env: Variable | None = Field(
        None, description="The environment variable with the former shared secret, which is accepted too."
    )
    previous_secret_file: str | None = Field(None, description="The file with the former shared secret.")
    ca_file: str | None = Field(
        None,
        description="The file with the CA certificates of its key URLs, in PEM. Replaces the system's certificates.",
    )
    allow_http: bool = Field(
        False,
        description=(
            "Allow plain http for its key URLs, if the host is a private address, a name without dots, or a service of "
            "the cluster (`.svc`). A system on the network path can then replace the keys."
        ),
    )
    use_proxy: bool = Field(True, description="Fetch its keys through DIALTONE_EGRESS_PROXY, if that is set.")
    header: str | None = Field(
        None, description="The request header with its tokens, which a proxy adds. They are then accepted only there."
    )
    signer: str | None = Field(
        None, description="The ARN of the AWS application load balancer that signs its tokens (x-amzn-oidc-data)."
    )
    required_scopes: Words = Field(frozenset(), description="Scopes that every request of a user requires.")
    token_types: Words = Field(
        frozenset({"jwt", "at+jwt"}), description="Allowed `typ` headers. A token without `typ` is allowed too."
    )
    leeway_seconds: int = Field(30, strict=True, ge=0, le=300, description="Allowed clock difference in seconds.")
    max_token_age_seconds: int | None = Field(
        None, strict=True, gt=0, description="Reject tokens issued longer ago than this, even if they have not expired."
    )
    logout_audiences: Words = Field(
        frozenset(), description="Client IDs that OIDC logout tokens may name. Default: the audiences."
    )

    ops_client_id: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,255}$")] | None = Field(
        None,
        description="The client ID with which operators sign in at /ops and /docs. Only one issuer may have one.",
    )
    ops_scopes: frozenset[Annotated[str, Field(pattern=SCOPE)]] = Field(
        OPS_SCOPES, description="Scopes that the sign-in of operators requests. `openid` is required."
    )

    @field_validator("token_types")
    @classmethod
    def _lower(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(word.lower().removeprefix("application/") for word in value)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if grants.is_reserved(self.issuer):
            raise FieldError("issuer", f"{self.issuer} is reserved for grants; an identity provider cannot have it")
        sources = [self.jwks_url, self.discovery_url, self.pem, self.pem_file, self.secret_env, self.secret_file]
        if sum(source is not None for source in sources) > 1:
            raise FieldError("issuer", "jwks_url, discovery_url, PEM and shared secret exclude each other; keep one")
        previous = (self.previous_secret_env, self.previous_secret_file)
        if any(previous) and (all(previous) or not self.is_symmetric):
            raise FieldError("previous_secret_env", "requires a shared secret, and excludes previous_secret_file")
        token_claims.check(self)
        known_issuers.check(self)
        if self.secret_encoding is not SecretEncoding.UTF8 and not self.is_symmetric:
            raise FieldError("secret_encoding", f"has no effect, because {self.issuer} has no shared secret; remove it")
        if not any(sources) and self.tenants is not None:
            raise FieldError(
                "issuer", f"keys cannot be discovered from the template {self.issuer}; set jwks_url to its key set"
            )
        if (fault := find_fault(self) or find_sign_in_fault(self)) is not None:
            raise FieldError(*fault)
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
        if self.algorithms:
            return self.algorithms
        if self.signer is not None:
            return frozenset({"ES256"})
        return frozenset({"HS256"}) if self.is_symmetric else frozenset({"RS256", "ES256"})

    def ca_pem(self) -> str | None:
        """The CA certificates for its key URLs; None for the system's. Raises FieldError."""
        return None if self.ca_file is None else load("ca_file", checked_ca_pem, read_text("ca_file", self.ca_file))

    @property
    def effective_token_types(self) -> frozenset[str]:
        """The configured `typ` headers. By default, an issuer of ID tokens has no typed access tokens (RFC 9068)."""
        is_default = "token_types" not in self.model_fields_set
        return frozenset({"jwt"}) if self.token_kind is TokenKind.ID and is_default else self.token_types

    def fixed_keys(self, secret_of: SecretOf) -> KeySet | None:
        """The keys from the configuration; None if they are fetched. Raises FieldError."""
        secret = load_secret(self, "secret", secret_of, self._secret_bytes)
        if secret is not None:
            previous = load_secret(self, "previous_secret", secret_of, self._secret_bytes)
            return from_secret(secret, self.effective_algorithms, previous)
        if self.pem_file is not None:
            return load("pem_file", from_pem, read_text("pem_file", self.pem_file), self.effective_algorithms)
        if self.pem is not None:
            return load("pem", from_pem, self.pem, self.effective_algorithms)
        return None

    def _secret_bytes(self, text: str | None) -> bytes:
        return checked_secret(token_claims.secret_bytes(text or "", self.secret_encoding))


class RuleTable(Table):
    """One rule. Omitted values default to the service's settings."""

    name: Name = Field(description="The name in the log and in `dialtone policy test`.")
    effect: Literal["allow", "deny"] = "allow"
    mode: PolicyMode = Field(
        PolicyMode.ENFORCE, description="`shadow`: the rule decides nothing; its decision is only logged."
    )
    issuers: frozenset[str] | None = Field(
        None, min_length=1, description="Names of issuers; dialtone:users and dialtone:guests for grants. Default: all."
    )
    claims: ClaimTables = Field(default_factory=dict, description=f"Conditions on claims, all required: {CLAIM_KINDS}")
    scopes: Words = Field(frozenset(), description="Scopes that the token must have for the rule to match.")
    connection_id: ConnectionId | None = Field(None, description="The ID of the Telnyx credential connection.")
    ttl_seconds: TtlTable = TtlTable()
    grants: frozenset[LoginMethod] | None = Field(None, description="Allowed login methods. Empty: no logins.")
    max_devices: int | None = Field(
        None, strict=True, ge=1, le=900, description="Maximum number of live devices of one user."
    )
    at_device_limit: DeviceLimitAction | None = Field(
        None,
        description=(
            "`reject` the next device, or `evict_oldest`: log out the least recently used device. Default: a new "
            "browser evicts the least recently used browser, and a new phone is rejected."
        ),
    )
    max_lease_age_seconds: LeaseAge | None = Field(
        None,
        description="A device's credential that is older is replaced at its next login. Default: never.",
    )
    rtc: RtcTable = Field(RtcTable(), description="Options of the WebRTC SDK, which clients get with each login.")
    push: bool = Field(True, description="Allow push credentials to be registered.")
    push_scopes: Words = Field(frozenset(), description="Scopes that registering a push credential requires.")
    admin: Admin = Field(
        False,
        description=(
            "Allow operators' requests for tokens with the scope dialtone:admin. `{ issuers = [...] }` limits them to "
            "the users of these issuers."
        ),
    )
    admin_requires_scope: bool = Field(
        True, description="If false, `admin` suffices without the scope. The rule must then have claims or scopes."
    )
    vouches_for: frozenset[GrantKind] = Field(
        frozenset(), description="Kinds of grants that tokens with the scope dialtone:grants may mint."
    )
    outbound: OutboundRequirement | None = Field(
        None,
        description=(
            "The requirement for the connection, or logins get 503: `none` (it cannot call phone numbers), `limited` "
            "(the same, or its outbound voice profile enforces a daily spend limit), `any` (default)."
        ),
    )

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        grants.check(self.issuers, {name: getattr(self, name) for name in self.model_fields_set})
        given = self.model_fields_set - {"name", "effect", "mode", "issuers", "claims", "scopes"}
        if self.effect == "deny" and given:
            raise FieldError(min(given), "has no effect in a rule that denies; remove it")
        if not self.admin_requires_scope and not self.admin:
            raise FieldError("admin_requires_scope", "has no effect without admin = true; remove it")
        if not self.admin_requires_scope and not (self.claims or self.scopes):
            raise FieldError("admin_requires_scope", "would make every user an operator; add claims or scopes")
        return self

    def as_rule(self, default: Allowance, issuers: Mapping[str, IssuerTable]) -> Rule:
        """The domain's rule, with defaults for omitted values. `issuers` by name; FieldError for an unknown one."""
        names = {name: table.issuer for name, table in issuers.items()} | grants.NAMES
        for name in sorted(self.issuers or ()):
            if name not in names:
                raise FieldError("issuers", f"{name!r} is not the name of a configured issuer")
        return Rule(
            name=self.name,
            allowance=None
            if self.effect == "deny"
            else grants.limited(self.issuers, self._allowance(default, visibility_of(self.admin, issuers))),
            issuers=None if self.issuers is None else frozenset(names[name] for name in self.issuers),
            claims=conditions(self.claims),
            scopes=self.scopes,
            mode=self.mode,
        )

    def _allowance(self, default: Allowance, visibility: Visibility) -> Allowance:
        ttl = {platform: getattr(self.ttl_seconds, platform) for platform in Platform}
        return Allowance(
            connection_id=self.connection_id or default.connection_id,
            ttl={platform: timedelta(seconds=own) if own else default.ttl[platform] for platform, own in ttl.items()},
            login_methods=default.login_methods if self.grants is None else self.grants,
            max_devices=self.max_devices or default.max_devices,
            at_device_limit=self.at_device_limit or default.at_device_limit,
            push=self.push,
            push_scopes=self.push_scopes,
            admin=self.admin is not False,
            admin_requires_scope=self.admin_requires_scope,
            vouches_for=self.vouches_for,
            outbound=self.outbound or default.outbound,
            visibility=visibility,
            rtc=self.rtc.options(),
            max_lease_age=None if (age := self.max_lease_age_seconds) is None else timedelta(seconds=age),
        )


class PolicyTable(Table):
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
        if self.mode is PolicyMode.SHADOW and any(isinstance(rule.admin, AdminTable) for rule in self.rules):
            # While nothing is enforced, the scope alone makes an operator, of all issuers.
            raise FieldError("mode", "shadow would not limit operators to their issuers; enforce it")
        return self

    def as_policy(self, default: Allowance, issuers: Mapping[str, IssuerTable]) -> Policy:
        rules = []
        for number, rule in enumerate(self.rules):
            try:
                rules.append(rule.as_rule(default, issuers))
            except FieldError as fault:
                raise FieldError(f"policy.rules[{number}].{fault.field}", str(fault)) from None
        required = {issuer.issuer: issuer.required_scopes for issuer in issuers.values()}
        return Policy(default, tuple(rules), self.mode, required)


class ConfigFile(Table):
    """Issuers, the policy and endpoints for events of Dialtone. Settings of the process are environment variables."""

    model_config = ConfigDict(
        title="dialtone.toml", json_schema_extra={"$schema": "https://json-schema.org/draft/2020-12/schema"}
    )

    issuers: tuple[IssuerTable, ...] = Field(min_length=1, max_length=100)
    policy: PolicyTable = PolicyTable()
    events: EventsTable = EventsTable()

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        token_claims.check_all(self.issuers)
        names = [issuer.name or issuer.issuer for issuer in self.issuers]
        if len(set(names)) != len(names):
            raise FieldError("issuers", "two issuers have the same name; without a name, it is the issuer itself")
        if sum(issuer.ops_client_id is not None for issuer in self.issuers) > 1:
            raise FieldError("issuers", "two issuers have an ops_client_id; operators sign in with one issuer")
        headers = [issuer.header.lower() for issuer in self.issuers if issuer.header is not None]
        if len(set(headers)) != len(headers):
            raise FieldError("issuers", "two issuers have the same header; a header belongs to one issuer")
        return self


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A checked configuration, with loaded keys and completed rules."""

    issuers: tuple[tuple[IssuerTable, KeySet | None], ...]
    """The issuers, each with its keys from the configuration, or None if the keys are fetched."""
    policy: Policy
    ca_pems: tuple[str | None, ...]
    """For each issuer, the CA certificates for its key URLs; None for the system's."""
    grant_keys: GrantKeys | None = None
    """The keys of grants; None if grants are off."""
    endpoints: tuple[WebhookEndpoint, ...] = ()


def resolve(configuration: ConfigFile, default: Allowance, secret_of: SecretOf) -> ResolvedConfig:
    """Load keys and secrets, and complete the rules. Raises FieldError, whose field is a path into the file."""
    issuers = []
    ca_pems = []
    for number, issuer in enumerate(configuration.issuers):
        try:
            issuers.append((issuer, issuer.fixed_keys(secret_of)))
            ca_pems.append(issuer.ca_pem())
        except FieldError as fault:
            raise FieldError(f"issuers[{number}].{fault.field}", str(fault)) from None
    named = {issuer.name or issuer.issuer: issuer for issuer in configuration.issuers}
    policy = configuration.policy.as_policy(default, named)
    endpoints = configuration.events.as_endpoints(secret_of, named)
    return ResolvedConfig(tuple(issuers), policy, tuple(ca_pems), endpoints=endpoints)


def read(path: str) -> ConfigFile:
    """Read and check the file. Raises ConfigError with the file's path, the place and the fault."""
    try:
        raw = Path(path).read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than 1 MB")
        return ConfigFile.model_validate(tomllib.loads(raw.decode("utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        place, message = first_fault(error)
        raise ConfigError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from None
    except RecursionError:
        raise ConfigError(f"{path} has too many nested lists or tables") from None
    except ValueError:  # of tomllib, for an integer of thousands of digits
        raise ConfigError(f"{path} has a number that is too long") from None

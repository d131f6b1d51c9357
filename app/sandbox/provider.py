"""A simulated identity provider: its issuer, the claims of its tokens, and the settings that accept them."""

import base64
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template
from typing import Any

from app.sandbox.signing import SHARED_SECRET

Claims = dict[str, Any]
"""Claims of a token, or changes to them. `...` removes a claim."""

DEMO_USERS = ("alice", "bob", "carol")
OPERATORS = ("alice",)
"""Demo users that the authorization endpoint grants ADMIN_SCOPE."""

ADMIN_SCOPE = "dialtone:admin"
"""The scope that Dialtone requires for operators' requests."""

OIDC_SCOPES = ("openid", "profile", "email", "offline_access")
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
EXPIRED_SECONDS = 3600
"""Seconds since tokens of the kind `expired` expired."""

SECRET_VARIABLE = "SANDBOX_SECRET"  # noqa: S105 - the name of a variable

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LOAD_BALANCER_HEADER = ("iss", "client", "signer", "exp")
"""Claims that AWS load balancers write into the header of a token."""


class UnknownKind(ValueError):
    """The provider issues no tokens of this kind."""


@dataclass(frozen=True)
class Provider:
    """The properties in which providers differ. Texts may contain `$base`, `$issuer`, `$user`, `$uuid` and others."""

    title: str
    claims: Claims
    """The claims of the accepted token, besides `iss`, `iat` and `exp`."""
    kinds: Mapping[str, Claims | str]
    """Other tokens that the provider signs with the same keys, as changes to the claims. A text is an opaque token."""
    settings: Mapping[str, Any]
    """The settings of an issuer that accept this token and reject all others."""
    path: str = ""
    """The path of the issuer."""
    jwks: str | None = "/.well-known/jwks.json"
    """The path of the key set. None: the provider publishes no keys."""
    discovery: str | None = ""
    """The path of the discovery document. Empty: the usual path below the issuer. None: no discovery document."""
    discovery_issuer: str = "$issuer"
    """The issuer in the discovery document. For Entra's tenants and AD FS, it differs from the `iss` of the tokens."""
    pem: str | None = None
    """The path of the keys in PEM: an object by `kid`, or with `{kid}` one key."""
    algorithm: str = "RS256"
    typ: str | None = "JWT"
    """The `typ` header of the accepted token; None if it has none."""
    jwk: Mapping[str, Any] = field(default_factory=dict)
    """Members that its keys have or, with `...`, lack. Without `kid`, tokens have no `kid` either."""
    header: str | None = None
    """The request header that contains its tokens, if a proxy adds them."""


class SimulatedProvider:
    """A provider whose addresses begin with `base`, such as `http://127.0.0.1:8012`."""

    def __init__(self, name: str, provider: Provider, base: str) -> None:
        self.name = name
        self.provider = provider
        self._base = base
        self._addresses = {"base": base, "issuer": base + provider.path}

    @property
    def accepted_kind(self) -> str:
        """The kind of token that Dialtone accepts: `access`, or `id` for providers whose ID tokens it accepts."""
        return "id" if "access" in self.provider.kinds else "access"

    @property
    def kinds(self) -> list[str]:
        """All kinds of token, the accepted one first."""
        return [self.accepted_kind, *self.provider.kinds, "expired", "logout"]

    @property
    def discovery_path(self) -> str | None:
        own = self.provider.discovery
        return self.provider.path.rstrip("/") + "/.well-known/openid-configuration" if own == "" else own

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that the settings name."""
        settings = self.provider.settings
        if "secret_env" not in settings:
            return {}
        is_encoded = settings.get("secret_encoding") == "base64"
        return {SECRET_VARIABLE: base64.b64encode(SHARED_SECRET.encode()).decode() if is_encoded else SHARED_SECRET}

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self._filled(self.provider.discovery_issuer),
            "jwks_uri": f"{self._base}{self.provider.jwks}",
            "authorization_endpoint": f"{self._base}/authorize",
            "token_endpoint": f"{self._base}/token",
            "userinfo_endpoint": f"{self._base}/userinfo",
            "end_session_endpoint": f"{self._base}/end_session",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "scopes_supported": list(dict.fromkeys([*OIDC_SCOPES, *self.default_scopes, ADMIN_SCOPE])),
            "claims_supported": ["sub", "name", "preferred_username", "email", "email_verified", "auth_time"],
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.provider.algorithm],
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
        }

    def jwk_members(self) -> dict[str, Any]:
        members: dict[str, Any] = self._filled(dict(self.provider.jwk))
        return members

    def opaque_token(self, kind: str) -> str | None:
        """The text of a token that is not a JWT; None for a JWT. Raises UnknownKind."""
        if kind not in self.kinds:
            raise UnknownKind(kind)
        text = self.provider.kinds.get(kind)
        return text if isinstance(text, str) else None

    def claims(self, user: str, kind: str, *, now: int, ttl_seconds: int, session: str) -> Claims:
        """The claims of a JWT for a demo user. Raises UnknownKind."""
        if kind not in self.kinds:
            raise UnknownKind(kind)
        changes = self.provider.kinds.get(kind, {})
        issued = now - EXPIRED_SECONDS - ttl_seconds if kind == "expired" else now
        claims: Claims = {"iss": "$issuer", "iat": issued, "exp": issued + ttl_seconds} | self.provider.claims
        if kind == "logout":
            subject = {name: claims[name] for name in ("iss", "iat", "exp", "sub", "tid") if name in claims}
            claims = subject | {"aud": self._client(), "jti": "$jti", "sid": "$sid", "events": {LOGOUT_EVENT: {}}}
        filled: Claims = self._filled(claims | (changes if isinstance(changes, dict) else {}), user, session)
        return {name: value for name, value in filled.items() if value is not ...}

    def token_parts(self, claims: Claims, kind: str, kid: str) -> tuple[dict[str, Any], Claims]:
        """Header and claims of the JWT with these claims."""
        typ = self.provider.typ
        if kind == "logout":
            typ = "logout+jwt"
        elif kind in ("id", "refresh") and kind != self.accepted_kind:
            typ = typ and "JWT"
        is_published = self.provider.jwks is not None or self.provider.pem is not None
        has_kid = is_published and self.provider.jwk.get("kid") is not ...
        header = {"alg": self.provider.algorithm, "kid": kid if has_kid else None, "typ": typ}
        if self.is_load_balancer:
            header |= {name: claims[name] for name in _LOAD_BALANCER_HEADER if name in claims}
            claims = {name: value for name, value in claims.items() if name not in _LOAD_BALANCER_HEADER}
        return {name: value for name, value in header.items() if value is not None}, claims

    @property
    def is_load_balancer(self) -> bool:
        """Whether its tokens have the form of an AWS load balancer's: padded, with claims in the header."""
        return "signer" in self.provider.settings

    @property
    def default_scopes(self) -> list[str]:
        """The scopes of each access token."""
        scopes = self.provider.claims.get(self.scope_claim(), [])
        return scopes.split() if isinstance(scopes, str) else list(scopes)

    def scope_claim(self) -> str:
        return next((name for name in ("scope", "scp", "scopes") if name in self.provider.claims), "scope")

    def settings(self) -> dict[str, Any]:
        """An issuer of dialtone.toml that accepts the tokens of the kind `accepted_kind` and rejects all others."""
        own: dict[str, Any] = self._filled(dict(self.provider.settings))
        return {"name": self.name} | own

    def block(self) -> str:
        """The same as TOML."""
        return "\n".join(["[[issuers]]", *_toml(self.settings())])

    def _client(self) -> str:
        """The client id that logout tokens name."""
        settings = self.provider.settings
        client: str = settings.get("client_id") or settings.get("audiences", ["client-1"])[0]
        return client

    def _filled(self, value: Any, user: str = "alice", session: str = "") -> Any:
        """The value with its placeholders replaced."""
        person = uuid.uuid5(uuid.NAMESPACE_URL, f"https://sandbox.example/{user}")
        number = DEMO_USERS.index(user) + 1 if user in DEMO_USERS else 0
        words = self._addresses | {
            "user": user,
            "email": f"{user}@example.com",
            "uuid": str(person),
            "hex": person.hex[:24],
            "number": str(number),
            "jti": uuid.uuid4().hex,
            "sid": session,
        }

        def fill(part: Any) -> Any:
            match part:
                case str() if "$" in part and part != "$x5c":
                    return Template(part).safe_substitute(words)
                case dict():
                    return {fill(name): fill(item) for name, item in part.items()}
                case list():
                    return [fill(item) for item in part]
                case _:
                    return part

        return fill(value)


def _toml(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines of TOML. Conditions on claims are inline tables below dotted keys."""
    lines = []
    for name, value in settings.items():
        key = prefix + (name if _BARE_KEY.fullmatch(name) else json.dumps(name))
        if name == "required_claims":
            lines += _toml(value, f"{key}.")
        elif isinstance(value, dict):
            inner = ", ".join(f"{part} = {json.dumps(item)}" for part, item in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return lines

"""The tokens of one simulated identity provider, and the sessions of its demo users."""

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.sandbox.provider import ADMIN_SCOPE, DEMO_USERS, OPERATORS, SimulatedProvider, UnknownKind
from app.sandbox.signing import Signer

TOKEN_SECONDS = 3600
LOGOUT_SECONDS = 120

Clock = Callable[[], float]
"""Seconds since the epoch."""


class TokenRequestError(Exception):
    """A request that the token endpoint rejects, with the JSON body of the response."""

    def __init__(self, **body: Any) -> None:
        super().__init__(body["error"])
        self.body = body


@dataclass
class Session:
    """The session of a user, in all browsers and applications."""

    id: str
    auth_time: int
    """When the user last signed in, in seconds since the epoch."""


class TokenIssuer:
    """Issues the tokens of one provider, and keeps a session for each user."""

    def __init__(self, simulated: SimulatedProvider, clock: Clock = time.time) -> None:
        self.simulated = simulated
        self.signer = Signer(simulated.provider.algorithm)
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def issue(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The body of the token endpoint's response. Raises TokenRequestError."""
        try:
            user, kind = str(wanted["user"]), str(wanted.get("kind") or self.simulated.accepted_kind)
            ttl = int(wanted.get("ttl_seconds", TOKEN_SECONDS))
        except (ValueError, TypeError, KeyError):
            raise TokenRequestError(error="invalid_request") from None
        if user not in DEMO_USERS:
            raise TokenRequestError(error="invalid_grant", demo_users=DEMO_USERS)
        changes: dict[str, Any] = {}
        if "audience" in wanted:
            changes["aud"] = wanted["audience"]
        try:
            token = self.simulated.opaque_token(kind) or self._jwt(user, kind, ttl, changes, wanted.get("scope"))
        except UnknownKind:
            raise TokenRequestError(error="unsupported_kind", kinds=self.simulated.kinds) from None
        return {"access_token": token, "token_type": "Bearer", "expires_in": ttl, "kind": kind}

    def access_token(self, user: str, scopes: Iterable[str], ttl_seconds: int) -> str:
        """A token of the accepted kind. ID tokens contain no scopes."""
        kind = self.simulated.accepted_kind
        return self._jwt(user, kind, ttl_seconds, {}, None if kind == "id" else " ".join(scopes))

    def id_token(self, user: str, client_id: str, nonce: str | None) -> str:
        changes = {"aud": client_id, "azp": ..., "nonce": nonce or ..., "at_hash": ...}
        changes |= {"auth_time": self.session(user).auth_time} | self.profile(user)
        return self._jwt(user, self._id_kind, TOKEN_SECONDS, changes)

    def profile(self, user: str) -> dict[str, Any]:
        """The claims of the userinfo endpoint."""
        claims = self.simulated.claims(user, self._id_kind, now=0, ttl_seconds=0, session="")
        email = f"{user}@example.com"
        return {
            "sub": claims.get("sub", user),
            "name": user.capitalize(),
            "preferred_username": user,
            "email": email,
            "email_verified": True,
        }

    def granted_scopes(self, user: str, requested: Iterable[str]) -> list[str]:
        """The scopes that all tokens of the provider have, and those requested. Only operators get the admin scope."""
        scopes = dict.fromkeys([*self.simulated.default_scopes, *requested])
        return [scope for scope in scopes if scope != ADMIN_SCOPE or user in OPERATORS]

    def sign_in(self, user: str) -> Session:
        """Continue the session of the user, or begin one, with a new `auth_time`."""
        session = self.session(user)
        session.auth_time = int(self._clock())
        return session

    def session(self, user: str) -> Session:
        """The session of the user. Begins one if there is none."""
        return self._sessions.setdefault(user, Session(uuid.uuid4().hex[:16], int(self._clock())))

    def has_session(self, user: str, session_id: str) -> bool:
        """Whether this session of the user has not ended."""
        return user in self._sessions and self._sessions[user].id == session_id

    def end_session(self, user: str) -> str | None:
        """A logout token; None if the user has no session."""
        if user not in self._sessions:
            return None
        token = self._jwt(user, "logout", LOGOUT_SECONDS, {})
        del self._sessions[user]
        return token

    @property
    def _id_kind(self) -> str:
        """Providers without ID tokens of their own get those with the claims of their access tokens."""
        return "id" if "id" in self.simulated.kinds else self.simulated.accepted_kind

    def _jwt(self, user: str, kind: str, ttl: int, changes: dict[str, Any], scope: str | None = None) -> str:
        now, session = int(self._clock()), self.session(user).id
        claims = self.simulated.claims(user, kind, now=now, ttl_seconds=ttl, session=session) | changes
        claims = {name: value for name, value in claims.items() if value is not ...}
        if scope is not None:
            name = self.simulated.scope_claim()
            claims[name] = scope.split() if isinstance(claims.get(name), list) else scope
        header, claims = self.simulated.token_parts(claims, kind, self.signer.keys[0].kid)
        return self.signer.sign(header, claims, is_padded=self.simulated.is_load_balancer)

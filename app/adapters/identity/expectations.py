"""The requirements that the configuration sets for tokens, by reason code.

The log of rejected tokens and `dialtone token explain` use the same text. It comes from the configuration, and
contains no part of a token.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from app.adapters.identity.claims import (
    ID_TOKEN_CLAIMS,
    LOGOUT_AGE,
    LOGOUT_TYPES,
    MAX_SUBJECT_LENGTH,
    Issuer,
    SubjectType,
)
from app.adapters.identity.key_sets import RemoteKeySource
from app.adapters.identity.keys import HMAC_ALGORITHMS, MAX_KID_LENGTH

MAX_LISTED = 5
"""Accepted values that are listed. The remaining values are counted."""

MAX_EXPECTED_CHARS = 200
"""Characters of a requirement in the log."""

DISCOVERY = ("issuer", "discovery_url", "jwks_url")
"""Settings that decide from which URL discovered keys are fetched."""


class Expectation(NamedTuple):
    """The requirement of one check."""

    part: str
    """The checked part of the token, such as `aud` or `header alg`."""
    expected: str
    settings: tuple[str, ...] = ()
    """The settings that decide, named as in an issuer of dialtone.toml. Empty: no setting changes this check."""

    def as_details(self, issuer: str | None) -> Mapping[str, str]:
        """For the log. `issuer` is the configured issuer whose settings apply, if the check belongs to one."""
        fields = {
            "checked": self.part,
            "expected": self.expected[:MAX_EXPECTED_CHARS],
            "settings": ", ".join(self.settings),
            "issuer": issuer,
        }
        return MappingProxyType({name: value for name, value in fields.items() if value})


THREE_PARTS = Expectation("form", "three parts of base64url without padding, separated by dots")
STRICT_JSON = Expectation("form", "a header and a payload that are JSON objects, each member once")
_SECONDS = "a number of seconds since 1970"

OF_ANY_TOKEN = MappingProxyType(
    {
        "not_three_parts": THREE_PARTS,
        "not_base64url": THREE_PARTS,
        "not_canonical": Expectation("form", "base64url whose unused bits are zero, as RFC 4648 section 3.5 requires"),
        "not_json": STRICT_JSON,
        "not_json_object": STRICT_JSON,
        "member_twice": STRICT_JSON,
        "not_finite": Expectation("form", "numbers that a double can hold"),
        "too_deep": Expectation("form", "at most 16 nested objects and lists"),
        "bad_kid": Expectation("header kid", f"no kid, or text of at most {MAX_KID_LENGTH} characters"),
        "unsupported_header": Expectation("header", "none of crit, b64, zip, enc"),
        "wrong_tenant": Expectation(
            "iss", "the issuer template, filled with the tenant that the token names", ("issuer",)
        ),
        "event_token": Expectation("events", "no events"),
        "no_expiry": Expectation("exp", _SECONDS),
        "bad_exp": Expectation("exp", _SECONDS),
        "bad_nbf": Expectation("nbf", _SECONDS),
        "bad_iat": Expectation("iat", _SECONDS),
        "bad_session": Expectation("sid", f"text of 1 to {MAX_SUBJECT_LENGTH} characters"),
        "bad_token_id": Expectation("jti", f"text of 1 to {MAX_SUBJECT_LENGTH} characters"),
        "no_logout_event": Expectation("events", "the event of OIDC Back-Channel Logout"),
        "no_subject_and_no_session": Expectation("sub, sid", "sub or sid"),
        "not_before": Expectation("iat", "later than the not-before entries of the user, session and issuer"),
        "grant_revoked": Expectation("sid", "the ID of a grant that was not revoked"),
        "grant_of_other_device": Expectation("device_id", "the device that used the grant first"),
        "grant_of_other_origin": Expectation("request header Origin", "the origin of the grant"),
        "used_before": Expectation("jti", "a logout token that was not used before"),
        "malformed_request": Expectation("form", "one form field logout_token"),
    }
)
"""Requirements that are the same for all issuers."""


def of_issuer(issuer: Issuer) -> dict[str, Expectation]:
    """The requirements for tokens of one issuer."""
    leeway = f"{issuer.leeway_seconds:.0f} s"
    max_age = "any time" if issuer.max_age is None else f"{issuer.max_age.total_seconds():.0f} s"
    audience = Expectation(", ".join(issuer.audience_claims), _audience(issuer), ("audiences", "audience_claims"))
    subject = Expectation(issuer.subject_claim, _subject(issuer), ("subject_claim", "subject_type"))
    keys = key_settings(issuer)
    return {
        "too_long": Expectation("form", f"at most {issuer.max_token_length} characters", ("max_token_bytes",)),
        "wrong_header": Expectation("request header", request_header(issuer), ("header",)),
        "wrong_signer": Expectation("header signer", issuer.signer or "no signer", ("signer",)),
        "algorithm_not_allowed": Expectation("header alg", one_of(issuer.algorithms), ("algorithms",)),
        "wrong_type": Expectation("header typ", f"no typ, or {one_of(issuer.token_types)}", ("token_types",)),
        "keys_unavailable": Expectation("key", "a key source that responds with usable keys", keys),
        "unknown_key": Expectation("key", "a key of the issuer's key source that fits kid and alg", keys),
        "ambiguous_key": Expectation("key", "one key of the issuer's key source that fits kid and alg", keys),
        "key_of_another_issuer": Expectation("key", "a key without the name of another issuer", keys),
        "bad_signature": Expectation("signature", "a signature by the issuer's key", keys),
        "id_token": Expectation("kind of token", _no_foreign_claims(issuer), ("token_kind", "allowed_foreign_claims")),
        "expired": Expectation("exp", f"not earlier than {leeway} before now", ("leeway_seconds",)),
        "not_yet_valid": Expectation("nbf, iat", f"not later than {leeway} after now", ("leeway_seconds",)),
        "no_issue_time": Expectation("iat", _SECONDS, ("max_token_age_seconds",)),
        "too_old": Expectation("iat", f"at most {max_age} before now", ("max_token_age_seconds",)),
        "no_audience": audience,
        "bad_audience": audience,
        "wrong_audience": audience,
        "required_claim": Expectation("required claims", _conditions(issuer), ("required_claims",)),
        "bad_subject": subject,
        "unknown_subject": subject,
        "bad_scope": Expectation(issuer.scope_claim, "text, or a list of texts", ("scope_claim",)),
    }


def of_logout_tokens(issuer: Issuer) -> dict[str, Expectation]:
    """The requirements for logout tokens, where they differ from those for access tokens."""
    audience = Expectation(
        "aud", one_of(issuer.logout_audiences or issuer.audiences), ("logout_audiences", "audiences")
    )
    return {
        "wrong_type": Expectation("header typ", f"no typ, or {one_of(LOGOUT_TYPES)}"),
        "no_audience": audience,
        "bad_audience": audience,
        "wrong_audience": audience,
        "no_issue_time": Expectation("iat", _SECONDS),
        "too_old": Expectation("iat", f"at most {LOGOUT_AGE.total_seconds():.0f} s before now"),
        "wrong_signer": Expectation(
            "iss", "an issuer without signer: load balancers send no logout tokens", ("signer",)
        ),
    }


def of_all(issuers: Sequence[Issuer], max_token_length: int) -> dict[str, Expectation]:
    """The requirements that are checked before the issuer is known."""
    has_tenants = any(issuer.tenants is not None for issuer in issuers)
    settings = ("issuer", "tenants") if has_tenants else ("issuer",)
    return {
        **OF_ANY_TOKEN,
        "unknown_issuer": Expectation("iss", one_of(map(_named, issuers)), settings),
        "too_long": Expectation("form", f"at most {max_token_length} characters", ("max_token_bytes",)),
    }


def one_of(values: Iterable[str]) -> str:
    """The values in their alphabetical order, or the first of them and the number of the others."""
    listed = sorted(values)
    shown, more = listed[:MAX_LISTED], len(listed) - MAX_LISTED
    return " or ".join(shown) + (f" or one of {more} more" if more > 0 else "")


def _named(issuer: Issuer) -> str:
    if isinstance(issuer.tenants, frozenset):
        return f"{issuer.issuer} with the tenant {one_of(issuer.tenants)}"
    return issuer.issuer


def request_header(issuer: Issuer) -> str:
    return "Authorization" if issuer.header is None else issuer.header


def key_settings(issuer: Issuer) -> tuple[str, ...]:
    """The settings that name the source of the issuer's keys."""
    if isinstance(issuer.keys, RemoteKeySource):
        location = issuer.keys.location
        if location.jwks_url is not None:
            return ("jwks_url",)
        return DISCOVERY if location.discovery_url is None else ("discovery_url",)
    if issuer.signer is not None:
        return ("signer",)
    if issuer.algorithms <= HMAC_ALGORITHMS:
        return ("secret_env", "secret_file", "secret_encoding")
    return ("pem", "pem_file")


def _audience(issuer: Issuer) -> str:
    return one_of(issuer.audiences) if issuer.audiences else "no audience, or null"


def _subject(issuer: Issuer) -> str:
    if issuer.subject_type is SubjectType.INTEGER:
        return "a number from 0 to 2^63-1"
    return f"text of 1 to {MAX_SUBJECT_LENGTH} characters, without control characters"


def _no_foreign_claims(issuer: Issuer) -> str:
    return f"an access token, which has no {one_of(issuer.refused_claims & ID_TOKEN_CLAIMS)}"


def _conditions(issuer: Issuer) -> str:
    return " and ".join(condition.expected for condition in issuer.required_claims)

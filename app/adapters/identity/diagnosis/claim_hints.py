"""Hints for failed checks of headers and claims: the probable cause, and the fix."""

from typing import Any

from app.adapters.identity.claims import LAST_MOMENT, Issuer
from app.adapters.identity.diagnosis.shown import shown
from app.adapters.identity.keys import HMAC_ALGORITHMS, PUBLIC_KEY_ALGORITHMS
from app.vending.claim_conditions import claim_path, value_at

Claims = dict[str, Any]

_CLIENT_CLAIMS = ("client_id", "azp", "cid", "appid")
"""Claims that name the client. Providers without `aud` use one of them."""

MICROSOFT_GRAPH = frozenset({"00000003-0000-0000-c000-000000000000", "https://graph.microsoft.com"})

_TYPES = {
    "logout+jwt": "this is a logout token. Providers send it to /v1/backchannel-logout",
    "secevent+jwt": "this is a security event token",
    "rt+jwt": "this is a refresh token: send the access token",
    "dpop+jwt": "this is a DPoP proof: send the access token",
    "id+jwt": "this is an ID token: send the access token",
}

_UNITS = (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))

_SIGNATURE_BYTES = {
    "RS": (256, 384, 512, 1024),
    "PS": (256, 384, 512, 1024),
    "ES256": (64,),
    "ES384": (96,),
    "ES512": (132,),
    "HS256": (32,),
    "HS384": (48,),
    "HS512": (64,),
    "Ed": (64,),
}


def of_algorithm(header: Claims, issuer: Issuer) -> str:
    algorithm = header.get("alg")
    if algorithm is None:
        return "the header has no alg, so this is not a signed token"
    if not isinstance(algorithm, str):
        return "alg must be text: the token was changed, or the program that created it is faulty"
    if algorithm.lower() == "none":
        return "the token is unsigned, and any person can create it: an emulator or a test issues such tokens"
    if algorithm in HMAC_ALGORITHMS and not issuer.algorithms & HMAC_ALGORITHMS:
        return (
            "the token is signed with a shared secret: let the provider sign with a private key, or configure the "
            "secret (secret_env) instead of a public key"
        )
    if algorithm in PUBLIC_KEY_ALGORITHMS and issuer.algorithms <= HMAC_ALGORITHMS:
        return "the token is signed with a private key: configure the key set (jwks_url) instead of the shared secret"
    if algorithm in PUBLIC_KEY_ALGORITHMS | HMAC_ALGORITHMS:
        return f"if the provider is meant to sign with {algorithm}, add it to algorithms"
    if algorithm.upper() in PUBLIC_KEY_ALGORITHMS | HMAC_ALGORITHMS:
        return "the name of the algorithm is written in another case: the provider must send the exact name"
    if algorithm.startswith(("RSA", "ECDH", "A1", "A2", "dir", "PBES")):
        return "this is an algorithm of encrypted tokens (JWE): let the provider issue signed tokens"
    return "Dialtone does not support this algorithm"


def of_extensions(header: Claims, refused: frozenset[str]) -> str:
    named = ", ".join(sorted(refused & header.keys()))
    return f"the header has {named}, which would change how the token is verified: Dialtone supports no extensions"


def of_type(typ: Any, issuer: Issuer) -> str:
    name = typ.lower().removeprefix("application/") if isinstance(typ, str) else ""
    if name == "at+jwt" and "nonce" in issuer.allowed_foreign_claims:
        return 'this is an access token, and token_kind = "id" accepts ID tokens only'
    return _TYPES.get(name, "if access tokens of this provider have this typ, add it to token_types")


def of_signature(header: Claims, algorithm: str, signature: bytes, claims: Claims, issuer: Issuer) -> str:
    expected = next((sizes for name, sizes in _SIGNATURE_BYTES.items() if algorithm.startswith(name)), None)
    if algorithm.startswith("ES") and signature[:1] == b"\x30" and len(signature) not in (expected or ()):
        return (
            "the signature is in DER, as key management services and OpenSSL write it: the program that signs must "
            "write the two numbers one after the other (RFC 7518 section 3.4)"
        )
    if expected is not None and len(signature) not in expected:
        return f"the signature has {len(signature)} bytes, which is no length of {algorithm}: the token was cut off"
    if _audiences(claims) & MICROSOFT_GRAPH or "nonce" in header:
        return (
            "this is a token for Microsoft Graph, which only Graph can verify: request a token with a scope of your "
            "own API, such as api://CLIENT_ID/phone"
        )
    if issuer.algorithms <= HMAC_ALGORITHMS:
        return "the shared secret differs, or secret_encoding does not say how the provider writes it"
    return "the token was changed, or another key signed it: another environment of the provider, or an old key"


def of_kind(claims: Claims, issuer: Issuer) -> str:
    if "events" in claims:
        return "this is a logout token or a security event token: send the access token"
    present = sorted(issuer.refused_claims & claims.keys())
    switch = (
        f"; if these are access tokens, set allowed_foreign_claims = {_listed(present)}"
        if set(present) <= {"nonce", "at_hash"}
        else ""
    )
    return (
        f"this is probably an ID token, because it has {' and '.join(present)}: send the access token. If the provider "
        f'has only ID tokens, set token_kind = "id"{switch}'
    )


def of_time(claim: str, value: Any, now: float) -> str:
    if isinstance(value, str):
        return f"{claim} is text: the provider must write a number"
    if type(value) in (int, float) and value > LAST_MOMENT:
        unit = next((name for name, factor in _UNITS if value <= LAST_MOMENT * factor), None)
        return (
            f"{claim} is probably in {unit}: the provider must write seconds" if unit else f"{claim} is after year 9999"
        )
    if value is None and claim != "exp":
        return f"{claim} is null: the provider must write a number, or omit the claim"
    if value is None:
        return "a token without expiry would be valid forever: let the provider add exp"
    if type(value) in (int, float) and claim == "exp" and 0 <= value <= now:
        return "get a new token. If the token is new, check the clocks of this machine and of the provider"
    if type(value) in (int, float) and value > now:
        return "the clocks of this machine and of the provider differ: synchronize them"
    return f"{claim} is not a number of seconds since 1970"


def of_age(value: Any) -> str:
    if value is None:
        return "the maximum age requires iat: remove max_token_age_seconds, or let the provider add iat"
    return "get a new token, or increase max_token_age_seconds"


def of_audience(claims: Claims, issuer: Issuer) -> str:
    """For a token without an accepted audience."""
    found, first = _audiences(claims), _first_audience_claim(claims, issuer)
    if first is not None and first != "aud" and isinstance(value_at(claims, claim_path(first)), str):
        return f"the token is for another client, which {first} names: accept this client too if its users may log in"
    if not issuer.audiences:
        return "the issuer accepts only tokens without an audience: set audiences"
    if claims.get("ver") == "1.0" and any(own.startswith("api://") for own in found):
        return (
            "this is the audience of an Entra token of version 1: tokens of version 2 have the application (client) ID"
        )
    for own in sorted(found):
        for accepted in sorted(issuer.audiences):
            if own != accepted and _plain(own) == _plain(accepted):
                return (
                    f"{shown(own)} and {shown(accepted)} differ in their notation only: set audiences to {shown(own)}"
                )
    if found & MICROSOFT_GRAPH:
        return "this is a token for Microsoft Graph: request a token with a scope of your own API"
    for claim in _CLIENT_CLAIMS:
        value = claims.get(claim)
        if isinstance(value, str) and value in issuer.audiences and claim not in issuer.audience_claims:
            return f'the accepted audience is in {claim}: set audience_claims = ["{claim}"], and add a required claim'
    if _looks_like_id_token(claims):
        return "this is probably an ID token, whose audience is the client: send the access token"
    if not found:
        names = [claim for claim in _CLIENT_CLAIMS if isinstance(claims.get(claim), str)]
        if names:
            client = shown(claims[names[0]])
            return (
                f"the token has no audience, but {names[0]} {client}: request a token with an audience, or set "
                f'audience_claims = ["{names[0]}"] and audiences = [{client}]'
            )
        return "request the token with an audience or a resource, or let the provider add aud"
    if found == {"account"}:
        return "this is Keycloak's default: add an audience mapper for this service to a client scope"
    if any(isinstance(claims.get(claim), str) and claims[claim] in found for claim in _CLIENT_CLAIMS):
        return "the token is for the client itself: request an access token for the API of this service"
    return "the token is for another API: let the client request the right audience, or add this one to audiences"


def of_bad_audience() -> str:
    return "the audience must be text or a list of texts"


def of_required_claim(claims: Claims) -> str:
    if claims.get("token_type") == "refresh" or claims.get("token_use") == "refresh" or claims.get("typ") == "Refresh":
        return "this is a refresh token: send the access token"
    if claims.get("token_use") == "id" or claims.get("typ") == "ID":
        return "this is an ID token: send the access token"
    if _is_of_machine(claims):
        return "this token belongs to an application, not to a user (client credentials): let a user sign in"
    if _looks_like_id_token(claims):
        return "this is probably an ID token, because it has no scopes: send an access token with a scope of your API"
    return "the token is of another kind than required_claims requires, or the condition is wrong"


def of_subject(value: Any, claims: Claims, issuer: Issuer, *, expects_text: bool) -> str:
    if value is None:
        others = [
            name for name in ("sub", "oid", "uid", "user_id") if claims.get(name) and name != issuer.subject_claim
        ]
        hint = f": the token has {' and '.join(others)}" if others else ""
        return f"no claim {issuer.subject_claim} names the user{hint}. Set subject_claim to the claim that does"
    if type(value) is int and expects_text:
        return 'the claim is a number: set subject_type = "integer"'
    if isinstance(value, str) and not expects_text:
        return 'the claim is text: set subject_type = "text"'
    return "the claim cannot name a user: set subject_claim to a claim that identifies the user"


def of_scope(issuer: Issuer) -> str:
    return f"set scope_claim to the claim with the scopes, if {issuer.scope_claim} is not it"


def _first_audience_claim(claims: Claims, issuer: Issuer) -> str | None:
    """The claim that the service compares: the first that the token has."""
    names = zip(issuer.audience_claims, issuer.audience_paths, strict=True)
    return next((name for name, path in names if value_at(claims, path) is not None), None)


def _audiences(claims: Claims) -> set[str]:
    value = claims.get("aud")
    values = value if isinstance(value, list) else [value]
    return {item for item in values if isinstance(item, str)}


def _plain(audience: str) -> str:
    return audience.strip().lower().removeprefix("https://").removeprefix("http://").removeprefix("api://").rstrip("/")


def _looks_like_id_token(claims: Claims) -> bool:
    has_scope = any(claims.get(name) for name in ("scope", "scp"))
    of_user = any(
        name in claims for name in ("email", "name", "given_name", "preferred_username", "auth_time", "nonce")
    )
    return claims.get("token_use") == "id" or claims.get("typ") == "ID" or (of_user and not has_scope)


def _is_of_machine(claims: Claims) -> bool:
    subject = claims.get("sub")
    return (
        claims.get("gty") == "client-credentials"
        or claims.get("idtyp") == "app"
        or (isinstance(subject, str) and subject.endswith("@clients"))
        or (isinstance(subject, str) and subject in [claims.get(name) for name in _CLIENT_CLAIMS])
        or str(value_at(claims, ("preferred_username",))).startswith("service-account-")
    )


def _listed(values: list[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"

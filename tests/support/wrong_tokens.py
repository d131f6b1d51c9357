"""Texts that Dialtone rejects as access tokens, each with the texts that its explanation must contain."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from joserfc import jwt
from joserfc.jwk import OctKey

from tests.support.tokens import ISSUER, claims_of, ec_key, rsa_key, token
from tests.support.verification import SECRET, raw_token

TENANT, OTHER = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "11111111-2b34-4da1-9baa-8bc8c9d6a490"
AUTH0 = "https://tenant.eu.auth0.com/"
ENTRA = "https://login.microsoftonline.com"
CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
KEYCLOAK = "https://id.example.com/realms/staff"
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE"

CONFIGS = {
    "plain": f'issuer = "{ISSUER}"\naudiences = ["dialtone"]',
    "auth0": f'issuer = "{AUTH0}"\naudiences = ["https://phones.example.com"]\n'
    'required_claims.sub = { glob = "*|*" }',
    "entra": f'issuer = "{ENTRA}/{TENANT}/v2.0"\naudiences = ["api://dialtone"]\nsubject_claim = "oid"\n'
    'scope_claim = "scp"\nrequired_claims.scp = { glob = "?*" }',
    "tenants": f'issuer = "{ENTRA}/{{tid}}/v2.0"\ntenants = ["{TENANT}"]\naudiences = ["dialtone"]',
    "cognito": f'issuer = "{COGNITO}"\naudiences = ["{CLIENT}"]\naudience_claims = ["client_id"]\n'
    'required_claims.token_use = "access"',
    "cognito preset": f'provider = "cognito"\nuser_pool_id = "eu-west-1_EXAMPLE"\nclient_id = "{CLIENT}"',
    "google": 'issuer = "https://accounts.google.com"\naudiences = ["1-a.apps.googleusercontent.com"]\n'
    'token_kind = "id"\nrequired_claims.hd = "example.com"',
    "firebase": 'issuer = "https://securetoken.google.com/my-app"\naudiences = ["my-app"]',
    "keycloak": f'issuer = "{KEYCLOAK}"\naudiences = ["dialtone"]\nrequired_claims.typ = "Bearer"',
    "integer": f'issuer = "{ISSUER}"\naudiences = ["dialtone"]\nsubject_claim = "user_id"\nsubject_type = "integer"',
    "young": f'issuer = "{ISSUER}"\naudiences = ["dialtone"]\nmax_token_age_seconds = 3600',
    "scopes": f'issuer = "{ISSUER}"\naudiences = ["dialtone"]\nrequired_scopes = ["phone"]',
}
"""The lines of an issuer in dialtone.toml, without its key."""

NOW = int(time.time())
"""When this module was imported. The tests that use it may run half an hour later."""

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class WrongToken:
    text: Callable[[], str]
    names: tuple[str, ...]
    """Texts that the explanation must contain: the claim, the setting, and the cause."""
    config: str = "plain"
    key: str = "pem"
    """The key source: `pem`, `secret`, or the address of a key set."""


def signed(**claims: Any) -> Callable[[], str]:
    return lambda: token(**claims)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def hmac_token(secret: str, **claims: Any) -> str:
    key = OctKey.import_key(secret)
    return jwt.encode({"alg": "HS256"}, claims_of(**claims), key, algorithms=["HS256"])


def encrypted() -> str:
    header = part({"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT"})
    return ".".join([header, "a2V5a2V5a2V5", "aXZpdml2", "Y2lwaGVydGV4dA", "dGFndGFn"])


def response(**members: str) -> str:
    return json.dumps({"token_type": "Bearer", "expires_in": 3600} | members)


NOT_A_TOKEN = {
    "opaque": WrongToken(lambda: "gho_16C7e42F292c6912E7710c838347Ae178B4a", ("opaque token", "not a JWT", "audience")),
    "opaque with dots": WrongToken(lambda: "ya29.a0AfB_byC.xyz", ("opaque",)),
    "encrypted": WrongToken(encrypted, ("encrypted (JWE", "A256GCM", "signed tokens")),
    "Bearer twice": WrongToken(lambda: f"Bearer Bearer {token()}", ("word Bearer appears twice",)),
    "scheme DPoP": WrongToken(lambda: f"DPoP {token()}", ("scheme DPoP", "the word Bearer")),
    "scheme of Django": WrongToken(lambda: f"Token {token()}", ("scheme Token", "the word Bearer")),
    "double quotes": WrongToken(lambda: f'"{token()}"', ("quotation marks",)),
    "single quotes": WrongToken(lambda: f"'{token()}'", ("quotation marks",)),
    "typographic quotes": WrongToken(lambda: f"\u201c{token()}\u201d", ("quotation marks",)),
    "line breaks": WrongToken(lambda: "\n".join(token()[i : i + 76] for i in range(0, 2000, 76)), ("line breaks",)),
    "token response": WrongToken(lambda: response(access_token=token()), ("JSON response", "access_token")),
    "response with an opaque token": WrongToken(
        lambda: response(access_token="abc123def456", id_token=token()), ("JSON response", "opaque token")
    ),
    "error response": WrongToken(lambda: '{"error": "invalid_grant"}', ("error response", "no token")),
    "nested response": WrongToken(
        lambda: json.dumps({"AuthenticationResult": {"IdToken": token(aud="x"), "AccessToken": token()}}),
        ("AuthenticationResult.IdToken", "send the value of AuthenticationResult.AccessToken only"),
    ),
    "response in camel case": WrongToken(
        lambda: json.dumps({"accessToken": token(), "tokenType": "Bearer"}), ("send the value of accessToken only",)
    ),
    "response of SimpleJWT": WrongToken(
        lambda: json.dumps({"refresh": token(), "access": token()}), ("send the value of access only",)
    ),
    "device response": WrongToken(
        lambda: json.dumps({"device_code": "a", "user_code": "B-C"}), ("first response of the device flow",)
    ),
    "claims": WrongToken(lambda: json.dumps(claims_of()), ("claims of a token", "dialtone policy test")),
    "key set": WrongToken(lambda: json.dumps({"keys": []}), ("key set",)),
    "JSON serialization": WrongToken(
        lambda: json.dumps({"payload": "e30", "signatures": []}), ("JSON serialization", "compact")
    ),
    "page": WrongToken(lambda: "<!DOCTYPE html><html>Sign in</html>", ("HTML",)),
    "public key": WrongToken(lambda: "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", ("PEM",)),
    "undefined": WrongToken(lambda: "undefined", ("placeholder",)),
    "shell variable": WrongToken(lambda: "$TOKEN", ("placeholder",)),
    "URL-encoded": WrongToken(lambda: quote(token(), safe="").replace(".", "%2E"), ("URL-encoded",)),
    "address": WrongToken(
        lambda: f"https://app.example.com/#access_token={token()}&state=x", ("address", "access_token")
    ),
    "cookie": WrongToken(lambda: f"session={token()}; Path=/; HttpOnly", ("cookie", "access token")),
    "header line": WrongToken(lambda: f"Authorization: Bearer {token()}", ("whole header Authorization",)),
    "curl command": WrongToken(lambda: f"curl -H 'Authorization: Bearer {token()}' https://a", ("other text",)),
    "two tokens": WrongToken(lambda: f"{token()} {token()}", ("2 tokens",)),
    "Flask session": WrongToken(lambda: f"{part({'user': 1})}.ZbC1-w.c2lnbmF0dXJl", ("session cookie",)),
    "Telnyx API key": WrongToken(lambda: "KEY018F6C1E2D3A4B5C_abcdefghijk", ("Telnyx API key", "replace it")),
    "shortened": WrongToken(lambda: token()[:40] + "...", ("shortened or masked",)),
    "invisible character": WrongToken(lambda: token() + "\u200b", ("invisible",)),
    "PASETO": WrongToken(lambda: "v4.public.eyJzdWIiOiIxIn0abcdefgh", ("PASETO",)),
}
"""By name. None of these is a signed token in compact form."""

DAMAGED = {
    "unsigned": WrongToken(
        lambda: f"{part({'alg': 'none'})}.{part(claims_of())}.", ("no signature", '"none"', "algorithms")
    ),
    "signature removed": WrongToken(lambda: token().rpartition(".")[0], ("signature is missing",)),
    "cut within the payload": WrongToken(lambda: token()[:120], ("cut off",)),
    "cut within the signature": WrongToken(lambda: token()[:-102], ("bytes", "cut off", "bad_signature")),
    "header only": WrongToken(lambda: part({"alg": "RS256"}), ("ends after its header",)),
    "changed": WrongToken(
        lambda: f"{token().split('.')[0]}.{part(claims_of('mallory'))}.{token().split('.')[2]}",
        ("signature", "bad_signature", "token was changed"),
    ),
    "padded": WrongToken(lambda: f"{token()}==", ("padding",)),
    "byte order mark": WrongToken(
        lambda: raw_token('\ufeff{"alg": "RS256"}', claims_of()), ("header is not a JSON object", "not_json")
    ),
    "not JSON": WrongToken(lambda: raw_token("{", claims_of()), ("header is not a JSON object", "not_json")),
    "member twice": WrongToken(
        lambda: raw_token({"alg": "RS256"}, '{"iss": "a", "iss": "b"}'), ("member_twice", "appears twice")
    ),
    "too long": WrongToken(
        signed(groups=["x" * 50] * 200), ("too_long", "max_token_bytes", "DIALTONE_MAX_TOKEN_BYTES")
    ),
}

HEADERS = {
    "algorithm": WrongToken(lambda: token(key=ec_key("P-384"), header={"alg": "ES384"}), ("ES384", "algorithms")),
    "shared secret": WrongToken(lambda: hmac_token(SECRET), ("HS256", "algorithms", "secret_env")),
    "private key at a secret": WrongToken(signed(), ("RS256", "jwks_url"), key="secret"),
    "wrong secret": WrongToken(
        lambda: hmac_token("t" * 32), ("bad_signature", "secret_encoding", "DIALTONE_ISSUER_SECRET"), key="secret"
    ),
    "alg is a list": WrongToken(
        lambda: raw_token({"alg": ["RS256"]}, claims_of()), ("algorithm_not_allowed", "alg must be text")
    ),
    "another key": WrongToken(lambda: token(key=rsa_key("second")), ("bad_signature", "another key", "pem")),
    "typ": WrongToken(lambda: token(header={"typ": "dpop+jwt"}), ("wrong_type", "DPoP", "token_types")),
    "logout token": WrongToken(
        lambda: token(header={"typ": "logout+jwt"}, events={}), ("logout token", "backchannel-logout", "event_token")
    ),
    "crit": WrongToken(
        lambda: raw_token({"alg": "RS256", "crit": ["exp"], "exp": 1}, claims_of()), ("unsupported_header", "crit")
    ),
    "numeric kid": WrongToken(lambda: raw_token({"alg": "RS256", "kid": 7}, claims_of()), ("bad_kid", "kid 7")),
    "keys unavailable": WrongToken(
        signed(), ("keys_unavailable", "jwks_url", "DIALTONE_JWKS_URL", "503"), key="http://127.0.0.1:1/jwks"
    ),
}

ISSUERS = {
    "missing slash": WrongToken(
        signed(iss=AUTH0.rstrip("/"), sub="auth0|1", aud="https://phones.example.com"),
        ("unknown_issuer", AUTH0, "trailing slash", "lacks", "DIALTONE_ISSUER"),
        "auth0",
    ),
    "additional slash": WrongToken(signed(iss=f"{ISSUER}/"), ("trailing slash", "has")),
    "http": WrongToken(signed(iss=ISSUER.replace("https", "http")), ("scheme", "http instead of https")),
    "case": WrongToken(signed(iss="https://ID.example.com"), ("upper and lower case",)),
    "case of the path": WrongToken(signed(iss=KEYCLOAK.replace("staff", "Staff")), ("case in the path",), "keycloak"),
    "port": WrongToken(signed(iss=f"{ISSUER}:8443"), ("port", "8443 instead of 443")),
    "default port": WrongToken(signed(iss=f"{ISSUER}:443"), ("by the port 443", "has")),
    "white space": WrongToken(signed(iss=f"{ISSUER} "), ("white space",)),
    "Entra v1": WrongToken(
        signed(iss=f"https://sts.windows.net/{TENANT}/", aud="api://dialtone", oid="1", scp="phone"),
        ("version 1", "requestedAccessTokenVersion to 2"),
        "entra",
    ),
    "Entra tenant": WrongToken(
        signed(iss=f"{ENTRA}/{OTHER}/v2.0", aud="api://dialtone", oid="1", scp="phone"), ("tenant",), "entra"
    ),
    "unlisted tenant": WrongToken(
        signed(iss=f"{ENTRA}/{OTHER}/v2.0", tid=OTHER), ("not in tenants", OTHER, "unknown_issuer"), "tenants"
    ),
    "tenant of iss and tid": WrongToken(
        signed(iss=f"{ENTRA}/{TENANT}/v2.0", tid=OTHER), ("wrong_tenant", "tid"), "tenants"
    ),
    "tenant without version": WrongToken(signed(iss=f"{ENTRA}/{TENANT}/", tid=TENANT), ("path",), "tenants"),
    "Google without scheme": WrongToken(
        signed(iss="accounts.google.com", aud="1-a.apps.googleusercontent.com", hd="example.com"), ("scheme",), "google"
    ),
    "another realm": WrongToken(signed(iss=KEYCLOAK.replace("staff", "test")), ("path", "realm"), "keycloak"),
    "internal host": WrongToken(signed(iss="http://keycloak:8080/realms/staff"), ("host", "two addresses"), "keycloak"),
    "session cookie of Firebase": WrongToken(
        signed(iss="https://session.firebase.google.com/my-app", aud="my-app"),
        ("session cookie", "ID token"),
        "firebase",
    ),
    "Telnyx login token": WrongToken(
        lambda: hmac_token(SECRET, iss="telnyx_telephony", aud="telnyx_telephony"), ("Telnyx login token",)
    ),
    "unknown": WrongToken(signed(iss="https://elsewhere.example.org/"), ("no issuer matches", ISSUER)),
    "no iss": WrongToken(signed(iss=...), ("no iss", "takes_tokens_without_iss")),
    "list": WrongToken(signed(iss=[ISSUER]), ("iss must be text",)),
}

CLAIMS = {
    "audience": WrongToken(
        signed(aud="https://billing.example.com"), ("wrong_audience", "billing", "DIALTONE_AUDIENCE", "another API")
    ),
    "notation of the audience": WrongToken(
        signed(iss=f"{ENTRA}/{TENANT}/v2.0", aud="dialtone", oid="1", scp="phone"),
        ("differ in their notation",),
        "entra",
    ),
    "no audience": WrongToken(signed(aud=..., client_id="app"), ("no_audience", "client_id", "audience_claims")),
    "audience in azp": WrongToken(signed(aud="account", azp="dialtone"), ("azp", "audience_claims")),
    "Keycloak's audience": WrongToken(
        signed(iss=KEYCLOAK, aud="account", typ="Bearer"), ("audience mapper", "wrong_audience"), "keycloak"
    ),
    "audience is a number": WrongToken(signed(aud=7), ("bad_audience", "text or a list")),
    "Microsoft Graph": WrongToken(
        signed(iss=f"{ENTRA}/{TENANT}/v2.0", aud="00000003-0000-0000-c000-000000000000", oid="1", scp="phone"),
        ("Microsoft Graph",),
        "entra",
    ),
    "another client": WrongToken(
        signed(iss=COGNITO, aud=..., client_id="other", token_use="access"),
        ("another client", "client_id", CLIENT),
        "cognito",
    ),
    "ID token with nonce": WrongToken(signed(nonce="n", at_hash="h"), ("id_token", "ID token", "token_kind", "nonce")),
    "ID token without nonce": WrongToken(
        signed(aud="my-client", scope=..., email="CANARY@example.com", auth_time=NOW), ("ID token", "wrong_audience")
    ),
    "access token instead of an ID token": WrongToken(
        signed(iss="https://accounts.google.com", aud="1-a.apps.googleusercontent.com"),
        ("this is an access token", "token_kind", "required_claim", "hd", "DIALTONE_REQUIRED_CLAIMS"),
        "google",
    ),
    "ID token of Entra": WrongToken(
        signed(iss=f"{ENTRA}/{TENANT}/v2.0", aud="api://dialtone", oid="1", name="Alice", scope=...),
        ("required_claim", "scp", "ID token"),
        "entra",
    ),
    "machine token of a preset": WrongToken(
        signed(iss=COGNITO, aud=..., sub=CLIENT, client_id=CLIENT, token_use="access"),
        ("client credentials", f'sub is not "{CLIENT}"'),
        "cognito preset",
    ),
    "another client of a preset": WrongToken(
        signed(iss=COGNITO, aud=..., client_id="other", token_use="access"),
        ("another client", "client_id (DIALTONE_PROVIDER_CLIENT_ID)"),
        "cognito preset",
    ),
    "another user pool of a preset": WrongToken(
        signed(iss=COGNITO.replace("EXAMPLE", "OTHER"), aud=..., client_id=CLIENT, token_use="access"),
        ("unknown_issuer", "user_pool_id (DIALTONE_PROVIDER_USER_POOL_ID)"),
        "cognito preset",
    ),
    "ID token of Cognito": WrongToken(
        signed(iss=COGNITO, aud=CLIENT, token_use="id"),
        ("no_audience", "required_claim", "token_use", "ID token"),
        "cognito",
    ),
    "refresh token": WrongToken(signed(iss=KEYCLOAK, typ="Refresh"), ("refresh token", "required_claim"), "keycloak"),
    "machine token": WrongToken(
        signed(iss=AUTH0, sub="c1@clients", aud="https://phones.example.com", gty="client-credentials"),
        ("application", "client credentials", "required_claims"),
        "auth0",
    ),
    "application of Entra": WrongToken(
        signed(iss=f"{ENTRA}/{TENANT}/v2.0", aud="api://dialtone", oid="1", idtyp="app"),
        ("no scp", "application"),
        "entra",
    ),
    "expired": WrongToken(signed(exp=NOW - 7200), ("expired", "exp", "2 hours ago", "DIALTONE_LEEWAY_SECONDS")),
    "exp in milliseconds": WrongToken(signed(exp=(NOW + 600) * 1000), ("bad_exp", "milliseconds")),
    "exp in microseconds": WrongToken(signed(exp=(NOW + 600) * 10**6), ("bad_exp", "microseconds")),
    "exp in nanoseconds": WrongToken(signed(exp=(NOW + 600) * 10**9), ("bad_exp", "nanoseconds")),
    "nbf is null": WrongToken(signed(nbf=None), ("bad_nbf", "nbf is null")),
    "exp is text": WrongToken(signed(exp=str(NOW + 600)), ("bad_exp", "text")),
    "no exp": WrongToken(signed(exp=...), ("no_expiry", "no exp")),
    "nbf in the future": WrongToken(signed(nbf=NOW + DAY_SECONDS), ("not_yet_valid", "nbf", "clocks")),
    "iat in the future": WrongToken(signed(iat=NOW + DAY_SECONDS), ("not_yet_valid", "iat", "clocks")),
    "too old": WrongToken(signed(iat=NOW - 7200), ("too_old", "iat", "max_token_age_seconds"), "young"),
    "no iat": WrongToken(signed(iat=...), ("no_issue_time", "iat", "DIALTONE_MAX_TOKEN_AGE_SECONDS"), "young"),
    "no sub": WrongToken(signed(sub=..., user_id="u"), ("bad_subject", "sub", "user_id", "subject_claim")),
    "sub is a number": WrongToken(signed(sub=7), ("bad_subject", 'subject_type = "integer"')),
    "user_id is text": WrongToken(signed(user_id="7"), ("bad_subject", 'subject_type = "text"'), "integer"),
    "sub with a line break": WrongToken(signed(sub="CANARY\nx"), ("bad_subject", "control characters")),
    "scope is an object": WrongToken(signed(scope={"a": 1}), ("bad_scope", "scope_claim", "DIALTONE_SCOPE_CLAIM")),
    "missing scope": WrongToken(signed(scope="mail"), ("lacks the scope phone",), "scopes"),
    "several faults": WrongToken(
        signed(aud="other", exp=NOW - 7200, nonce="n"), ("id_token", "expired", "wrong_audience", "DIALTONE_AUDIENCE")
    ),
}

WRONG_TOKENS = {
    f"{kind}: {name}": wrong
    for kind, group in {
        "text": NOT_A_TOKEN,
        "damaged": DAMAGED,
        "header": HEADERS,
        "issuer": ISSUERS,
        "claims": CLAIMS,
    }.items()
    for name, wrong in group.items()
}

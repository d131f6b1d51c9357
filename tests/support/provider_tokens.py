"""Tokens of hosted identity providers, by the name of the issuer in the documentation.

The claims are those of the providers' documentation, with invented values.
"""

from dataclasses import dataclass, field
from typing import Any

Claims = dict[str, Any]
TENANT, OTHER = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "11111111-2b34-4da1-9baa-8bc8c9d6a490"
API, CLIENT = "11112222-bbbb-3333-cccc-4444dddd5555", "0oa1c01m77heEXUZt2p7"
ID_TOKEN = {"nonce": "n-0S6_WzA2Mj", "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}


@dataclass(frozen=True)
class Provider:
    claims: Claims
    """The right token's claims, in addition to `iat` and `exp`."""
    subject: str
    wrong: dict[str, Claims] = field(default_factory=dict)
    """Changes of the claims by the kind of token that they make. `...` removes a claim."""
    algorithm: str = "RS256"
    typ: str | None = "JWT"
    header: str | None = None


ENTRA_CLAIMS: Claims = {"aud": API, "oid": "user-1", "sub": "pairwise", "scp": "phone", "azp": CLIENT, "ver": "2.0"}
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE"
COGNITO_CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
GOOGLE = "https://accounts.google.com"
FIREBASE = "https://securetoken.google.com"

HOSTED = {
    "auth0": Provider(
        {
            "iss": "https://tenant.eu.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://phones.example.com", "https://tenant.eu.auth0.com/userinfo"],
            "azp": "client-1",
            "scope": "openid phone",
            "permissions": ["phone"],
        },
        "auth0|5f7c8ec7c33c6c004bbafe82",
        {
            "machine": {"sub": "client-1@clients", "gty": "client-credentials", "aud": "https://phones.example.com"},
            "ID token": {"aud": "client-1", **ID_TOKEN},
            "another API": {"aud": "https://billing.example.com"},
            "without the slash": {"iss": "https://tenant.eu.auth0.com"},
            "another tenant": {"iss": "https://other.eu.auth0.com/"},
        },
        typ="at+jwt",
    ),
    "entra-v2": Provider(
        {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "tid": TENANT, **ENTRA_CLAIMS},
        "user-1",
        {
            "application": {"scp": ..., "roles": ["Calls.All"], "idtyp": "app"},
            "ID token": {"scp": ..., "name": "Alice"},
            "another API": {"aud": OTHER},
            "another tenant": {"iss": f"https://login.microsoftonline.com/{OTHER}/v2.0", "tid": OTHER},
        },
    ),
    "entra-v1": Provider(
        {
            "iss": f"https://sts.windows.net/{TENANT}/",
            **ENTRA_CLAIMS,
            "aud": f"api://{API}",
            "ver": "1.0",
            "azp": ...,
            "appid": CLIENT,
        },
        "user-1",
        {
            "application": {"scp": ..., "roles": ["Calls.All"]},
            "v2": {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "aud": API},
        },
    ),
    "entra": Provider(
        {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "tid": TENANT, **ENTRA_CLAIMS},
        "user-1",
        {
            "another tenant": {"iss": f"https://login.microsoftonline.com/{OTHER}/v2.0", "tid": OTHER},
            "issuer of another tenant": {"tid": OTHER},
            "application": {"scp": ..., "roles": ["Calls.All"]},
        },
    ),
    "b2c": Provider(
        {
            "iss": f"https://staff.b2clogin.com/{TENANT}/v2.0/",
            "aud": API,
            "sub": "user-1",
            "tfp": "B2C_1_sign_in",
            "scp": "phone",
        },
        "user-1",
        {"another policy": {"tfp": "B2C_1_reset"}, "ID token": {"scp": ..., "nonce": "n"}},
    ),
    "okta": Provider(
        {
            "iss": "https://dev.okta.com/oauth2/default",
            "aud": "api://default",
            "cid": CLIENT,
            "uid": "00u1",
            "sub": "alice@example.com",
            "scp": ["openid", "phone"],
        },
        "00u1",
        {
            "another application": {"cid": "0oa2"},
            "machine": {"uid": ..., "sub": CLIENT},
            "ID token": {"aud": CLIENT, "cid": ..., **ID_TOKEN},
            "another server": {"iss": "https://dev.okta.com/oauth2/other"},
        },
        typ=None,
    ),
    "cognito": Provider(
        {"iss": COGNITO, "client_id": COGNITO_CLIENT, "sub": "u1", "token_use": "access", "scope": "phones/call"},
        "u1",
        {
            "ID token": {"client_id": ..., "aud": COGNITO_CLIENT, "token_use": "id"},
            "another client": {"client_id": "other"},
        },
        typ=None,
    ),
    "cognito-id": Provider(
        {
            "iss": COGNITO,
            "aud": COGNITO_CLIENT,
            "sub": "u1",
            "token_use": "id",
            "cognito:groups": ["staff"],
            **ID_TOKEN,
        },
        "u1",
        {
            "access token": {"aud": ..., "client_id": COGNITO_CLIENT, "token_use": "access"},
            "another client": {"aud": "other"},
        },
        typ=None,
    ),
    "google": Provider(
        {
            "iss": GOOGLE,
            "aud": "1234567890-example.apps.googleusercontent.com",
            "sub": "1100",
            "hd": "example.com",
            **ID_TOKEN,
        },
        "1100",
        {
            "private account": {"hd": ...},
            "another organization": {"hd": "example.org"},
            "another client": {"aud": "2-b.apps.googleusercontent.com"},
        },
    ),
    "firebase": Provider(
        {
            "iss": f"{FIREBASE}/my-app",
            "aud": "my-app",
            "sub": "u1",
            "user_id": "u1",
            "auth_time": 1700000000,
            "firebase": {"identities": {}, "sign_in_provider": "password"},
        },
        "u1",
        {
            "anonymous": {"firebase": {"identities": {}, "sign_in_provider": "anonymous"}},
            "session cookie": {"iss": "https://session.firebase.google.com/my-app"},
            "another project": {"iss": f"{FIREBASE}/other", "aud": "other"},
        },
    ),
}

"""Tokens of hosted identity providers, by the name of their preset.

The claims are those of the providers' documentation, with invented values.
"""

from dataclasses import dataclass, field
from typing import Any

Claims = dict[str, Any]
TENANT, OTHER = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "11111111-2b34-4da1-9baa-8bc8c9d6a490"
API, CLIENT = "11112222-bbbb-3333-cccc-4444dddd5555", "0oa1c01m77heEXUZt2p7"
TYP = "(typ)"
"""In changes of the claims: the `typ` header."""

NONCE = {"nonce": "n-0S6_WzA2Mj", "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}
"""Claims that most ID tokens have. The wrong ID tokens do without, because a client need not send a nonce."""


@dataclass(frozen=True)
class Provider:
    claims: Claims
    """The accepted token's claims, in addition to `iat` and `exp`."""
    subject: str
    wrong: dict[str, Claims] = field(default_factory=dict)
    """Changes of the claims by the kind of token that they make. `...` removes a claim."""
    algorithm: str = "RS256"
    typ: str | None = "JWT"
    header: str | None = None
    right: dict[str, Claims] = field(default_factory=dict)
    """Changes of the claims that make other accepted tokens of the same user."""
    scopes: str = ""
    """The accepted token's scopes, as the preset reads them."""


ENTRA_CLAIMS: Claims = {"aud": API, "oid": "user-1", "sub": "pairwise", "scp": "phone", "azp": CLIENT, "ver": "2.0"}
ENTRA: Claims = {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "tid": TENANT, **ENTRA_CLAIMS}
ENTRA_WRONG: dict[str, Claims] = {
    "application": {"scp": ..., "roles": ["Calls.All"], "idtyp": "app", "sub": "user-1"},
    "ID token of the API's registration": {"scp": ..., "name": "Alice", "azp": ...},
    "another API": {"aud": OTHER},
    "another tenant": {"iss": f"https://login.microsoftonline.com/{OTHER}/v2.0", "tid": OTHER},
}
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE"
COGNITO_CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
GOOGLE = "https://accounts.google.com"
FIREBASE = "https://securetoken.google.com"
STYTCH = "project-live-185e9a9f-8bab-42f2-a924-953a59e8ff94"
PINGONE = "https://auth.pingone.eu/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/as"


def stytch(subject: str, other: str) -> Provider:
    return Provider(
        {
            "iss": f"stytch.com/{STYTCH}",
            "aud": [STYTCH],
            "sub": f"{subject}-live-1",
            "https://stytch.com/session": {"id": "session-live-1"},
        },
        f"{subject}-live-1",
        {
            "machine": {"sub": "m2m-client-live-1", "https://stytch.com/session": ..., "scope": "read:users"},
            "machine with a user's claims": {"sub": "m2m-client-live-1"},
            "ID token of a connected app": {"https://stytch.com/session": ...},
            "another kind of project": {"sub": f"{other}-live-1"},
            "another project": {"iss": "stytch.com/project-live-2", "aud": ["project-live-2"]},
        },
    )


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
            "ID token": {"aud": "client-1", "azp": ..., "scope": ...},
            "another API": {"aud": "https://billing.example.com"},
            "without the slash": {"iss": "https://tenant.eu.auth0.com"},
            "another tenant": {"iss": "https://other.eu.auth0.com/"},
        },
        typ="at+jwt",
        scopes="openid phone",
    ),
    "entra": Provider(ENTRA, "user-1", ENTRA_WRONG, scopes="phone"),
    "entra-multitenant": Provider(
        ENTRA,
        "user-1",
        ENTRA_WRONG | {"issuer of another tenant": {"tid": OTHER}, "without a tenant": {"tid": ...}},
        scopes="phone",
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
            "another tenant": {"iss": f"https://sts.windows.net/{OTHER}/"},
            "another API": {"aud": f"api://{OTHER}"},
        },
        scopes="phone",
    ),
    "entra-b2c": Provider(
        {
            "iss": f"https://staff.b2clogin.com/{TENANT}/v2.0/",
            "aud": API,
            "sub": "user-1",
            "tfp": "B2C_1_sign_in",
            "scp": "phone",
        },
        "user-1",
        {
            "another policy": {"tfp": "B2C_1_reset"},
            "ID token": {"scp": ...},
            "another API": {"aud": OTHER},
            "another tenant": {"iss": f"https://staff.b2clogin.com/{OTHER}/v2.0/"},
        },
        scopes="phone",
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
            "ID token": {"aud": CLIENT, "cid": ..., "uid": ..., "scp": ..., "sub": "00u1"},
            "another server": {"iss": "https://dev.okta.com/oauth2/other"},
            "another audience": {"aud": "https://dev.okta.com"},
        },
        typ=None,
        scopes="openid phone",
    ),
    "cognito": Provider(
        {
            "iss": COGNITO,
            "client_id": COGNITO_CLIENT,
            "sub": "u1",
            "username": "alice",
            "token_use": "access",
            "scope": "phones/call",
        },
        "u1",
        {
            "ID token": {"client_id": ..., "aud": COGNITO_CLIENT, "token_use": "id"},
            "another client": {"client_id": "other"},
            "machine": {"sub": COGNITO_CLIENT, "username": ...},
            "another pool": {"iss": COGNITO.replace("EXAMPLE", "OTHER")},
        },
        typ=None,
        scopes="phones/call",
    ),
    "cognito-id": Provider(
        {
            "iss": COGNITO,
            "aud": COGNITO_CLIENT,
            "sub": "u1",
            "token_use": "id",
            "cognito:groups": ["staff"],
            **NONCE,
        },
        "u1",
        {
            "access token": {"aud": ..., "client_id": COGNITO_CLIENT, "token_use": "access"},
            "access token with an audience": {"token_use": "access"},
            "another client": {"aud": "other"},
            "another pool": {"iss": COGNITO.replace("EXAMPLE", "OTHER")},
        },
        typ=None,
    ),
    "google": Provider(
        {
            "iss": GOOGLE,
            "aud": "1234567890-example.apps.googleusercontent.com",
            "sub": "1100",
            "hd": "example.com",
            **NONCE,
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
            "custom token": {
                "iss": "a@my-app.iam.gserviceaccount.com",
                "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
            },
            "another project": {"iss": f"{FIREBASE}/other", "aud": "other"},
        },
    ),
    "clerk": Provider(
        {
            "iss": "https://clerk.example.com",
            "azp": "https://app.example.com",
            "sub": "user_1",
            "sid": "sess_1",
            "v": 2,
            "sts": "active",
        },
        "user_1",
        {
            "another origin": {"azp": "https://other.example.com"},
            "pending session": {"sts": "pending"},
            "machine": {"sub": "mch_1", "azp": ...},
            "machine with an origin": {"sub": "mch_1"},
            "OAuth access token": {"azp": ..., "client_id": "c1"},
            "impersonation": {"act": {"iss": "https://dashboard.clerk.com", "sid": "sess_2", "sub": "user_2"}},
            "another application": {"iss": "https://clerk.other.example"},
        },
        right={"version 1": {"v": ..., "sts": ...}},
    ),
    "supabase": Provider(
        {
            "iss": "https://ref.supabase.co/auth/v1",
            "aud": "authenticated",
            "sub": "u1",
            "role": "authenticated",
            "is_anonymous": False,
        },
        "u1",
        {
            "service role": {"role": "service_role"},
            "anonymous user": {"is_anonymous": True},
            "anonymous key": {"iss": "supabase", "role": "anon", "aud": ..., "sub": ...},
            "another project": {"iss": "https://other.supabase.co/auth/v1"},
        },
        algorithm="ES256",
        right={"older version": {"is_anonymous": ...}},
    ),
    "workos": Provider(
        {
            "iss": "https://api.workos.com/user_management/client_1",
            "sub": "user_1",
            "sid": "session_1",
            "org_id": "org_1",
            "permissions": ["phone"],
        },
        "user_1",
        {
            "another organization": {"org_id": "org_2"},
            "machine": {"sid": ..., "aud": "client_1", "sub": "client_1"},
            "machine without audience": {"sid": ..., "sub": "client_1"},
            "impersonation": {"act": {"sub": "admin@example.com"}},
            "another environment": {"iss": "https://api.workos.com/user_management/client_2"},
        },
        typ=None,
    ),
    "descope": Provider(
        {"iss": "P2YuRTmSv8PdoasfWiLoBrZP92as", "sub": "U2YuRTm", "drn": "DS", "amr": ["email"]},
        "U2YuRTm",
        {
            "refresh token": {"drn": "DSR"},
            "access key": {"sub": "K2YuRTm"},
            "impersonation": {"act": {"sub": "U2admin"}},
            "ID token": {"drn": ..., "aud": "P2YuRTmSv8PdoasfWiLoBrZP92as"},
            "another project": {"iss": "P2other"},
        },
    ),
    "stytch": stytch("user", "member"),
    "stytch-b2b": stytch("member", "user"),
    "pingone": Provider(
        {"iss": PINGONE, "aud": ["https://phones.example.com"], "sub": "u1", "client_id": API, "scope": "phone"},
        "u1",
        {
            "machine": {"sub": ...},
            "ID token": {"aud": API, "client_id": ..., "scope": ...},
            "token for PingOne's API": {"aud": ["https://api.pingone.eu"]},
            "another application": {"client_id": OTHER},
            "another environment": {"iss": PINGONE.replace(TENANT, OTHER)},
        },
        typ="at+jwt",
        scopes="phone",
    ),
}

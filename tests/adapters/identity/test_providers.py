"""Each identity provider's right token logs in, and the other tokens that the provider signs with the same key do not.

The issuer's settings are those that docs/policy.md describes.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from app.adapters.identity.verifier import TokenVerifier
from app.composition.issuers import open_verifier
from app.vending.errors import TokenRejected
from tests.support.configuration import load
from tests.support.provider_tokens import HOSTED, ID_TOKEN, Claims, Provider
from tests.support.tokens import ec_key, rsa_key
from tests.support.verification import SECRET

KEYCLOAK = "https://id.example.com/realms/staff"
CLUSTER = "https://kubernetes.default.svc.cluster.local"

PROVIDERS = HOSTED | {
    "Keycloak": Provider(
        f"""
        issuer = "{KEYCLOAK}"
        audiences = ["phones"]
        required_claims.typ = "Bearer"
        required_claims.sid = {{ glob = "?*" }}
        scope_claim = "/realm_access/roles"
        allowed_foreign_claims = ["nonce"]
        """,
        {
            "iss": KEYCLOAK,
            "aud": ["phones", "account"],
            "sub": "u1",
            "typ": "Bearer",
            "azp": "softphone",
            "sid": "s1",
            "nonce": "n",
            "realm_access": {"roles": ["phone"]},
        },
        "u1",
        {
            "ID token": {"typ": "ID", "aud": "softphone", **ID_TOKEN},
            "refresh token": {"typ": "Refresh", "aud": KEYCLOAK},
            "service account": {"sid": ..., "preferred_username": "service-account-batch"},
            "another audience": {"aud": "account"},
        },
    ),
    "Clerk": Provider(
        """
        issuer = "https://clerk.example.com"
        audiences = ["https://app.example.com"]
        audience_claims = ["azp"]
        required_claims.sts = "active"
        """,
        {"iss": "https://clerk.example.com", "azp": "https://app.example.com", "sub": "user_1", "sts": "active"},
        "user_1",
        {"another origin": {"azp": "https://other.example.com"}, "pending session": {"sts": "pending"}},
    ),
    "Supabase": Provider(
        """
        issuer = "https://ref.supabase.co/auth/v1"
        audiences = ["authenticated"]
        required_claims.role = "authenticated"
        required_claims.is_anonymous = false
        """,
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
        },
        algorithm="ES256",
    ),
    "WorkOS": Provider(
        """
        issuer = "https://api.workos.com/user_management/client_1"
        required_claims.sid = { glob = "session_*" }
        required_claims.org_id = "org_1"
        """,
        {
            "iss": "https://api.workos.com/user_management/client_1",
            "sub": "user_1",
            "sid": "session_1",
            "org_id": "org_1",
            "permissions": ["phone"],
        },
        "user_1",
        {"another organization": {"org_id": "org_2"}, "machine": {"sid": ..., "aud": "client_1"}},
        typ=None,
    ),
    "Zitadel": Provider(
        """
        issuer = "https://app.zitadel.cloud"
        audiences = ["project-1"]
        required_claims.jti = { glob = "?*" }
        required_claims."urn:zitadel:iam:org:project:roles" = { has_key = "phone" }
        """,
        {
            "iss": "https://app.zitadel.cloud",
            "aud": ["client-1", "project-1"],
            "sub": "1",
            "jti": "j",
            "urn:zitadel:iam:org:project:roles": {"phone": {"1": "example.com"}},
        },
        "1",
        {
            "ID token": {"jti": ...},
            "without the role": {"urn:zitadel:iam:org:project:roles": {"viewer": {"1": "example.com"}}},
            "another project": {"aud": ["client-2", "project-2"]},
        },
        typ=None,
    ),
    "authentik": Provider(
        """
        issuer = "https://id.example.com/application/o/phones/"
        audiences = ["client-1"]
        allowed_foreign_claims = ["nonce"]
        required_claims.scope = { glob = "?*" }
        """,
        {
            "iss": "https://id.example.com/application/o/phones/",
            "aud": "client-1",
            "sub": "u1",
            "azp": "client-1",
            "uid": "t1",
            "nonce": "n",
            "scope": "openid phone",
        },
        "u1",
        {
            "ID token": {"scope": ..., **ID_TOKEN},
            "another application": {"iss": "https://id.example.com/application/o/wiki/"},
        },
    ),
    "Cloudflare Access": Provider(
        """
        issuer = "https://team.cloudflareaccess.com"
        audiences = ["4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2"]
        header = "Cf-Access-Jwt-Assertion"
        """,
        {
            "iss": "https://team.cloudflareaccess.com",
            "aud": ["4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2"],
            "sub": "u1",
            "email": "alice@example.com",
            "type": "app",
            "identity_nonce": "6ei69kawdKzMIAPF",
        },
        "u1",
        {
            "service token": {"sub": "", "common_name": "e367826f93b8d71185e03fe518aff3b4.access"},
            "another application": {"aud": ["0" * 64]},
            "another team": {"iss": "https://other.cloudflareaccess.com"},
        },
        typ=None,
        header="cf-access-jwt-assertion",
    ),
    "Google IAP": Provider(
        """
        issuer = "https://cloud.google.com/iap"
        audiences = ["/projects/1/global/backendServices/2"]
        algorithms = ["ES256"]
        header = "x-goog-iap-jwt-assertion"
        """,
        {
            "iss": "https://cloud.google.com/iap",
            "aud": "/projects/1/global/backendServices/2",
            "sub": "accounts.google.com:1100",
            "email": "alice@example.com",
            "hd": "example.com",
        },
        "accounts.google.com:1100",
        {"another service": {"aud": "/projects/1/global/backendServices/3"}},
        algorithm="ES256",
        header="x-goog-iap-jwt-assertion",
    ),
    "Kubernetes": Provider(
        f"""
        issuer = "{CLUSTER}"
        audiences = ["dialtone"]
        required_claims."/kubernetes.io/namespace" = "phones"
        """,
        {
            "iss": CLUSTER,
            "aud": ["dialtone"],
            "sub": "system:serviceaccount:phones:agent",
            "kubernetes.io": {"namespace": "phones", "serviceaccount": {"name": "agent", "uid": "1"}},
        },
        "system:serviceaccount:phones:agent",
        {
            "token for the API server": {"aud": [CLUSTER]},
            "another namespace": {"kubernetes.io": {"namespace": "default"}},
        },
        typ=None,
    ),
    "GitHub Actions": Provider(
        """
        issuer = "https://token.actions.githubusercontent.com"
        audiences = ["https://phones.example.com"]
        required_claims.repository = "octo/phones"
        required_claims.ref = "refs/heads/main"
        """,
        {
            "iss": "https://token.actions.githubusercontent.com",
            "aud": "https://phones.example.com",
            "sub": "repo:octo/phones:ref:refs/heads/main",
            "repository": "octo/phones",
            "ref": "refs/heads/main",
        },
        "repo:octo/phones:ref:refs/heads/main",
        {
            "another repository": {"repository": "octo/other"},
            "pull request": {"ref": "refs/pull/1/merge"},
            "another audience": {"aud": "https://github.com/octo"},
        },
    ),
    "SimpleJWT": Provider(
        """
        issuer = "https://app.example.com"
        takes_tokens_without_iss = true
        subject_claim = "user_id"
        subject_type = "integer"
        required_claims.token_type = "access"
        """,
        {"token_type": "access", "jti": "j", "user_id": 7},
        "7",
        {"refresh token": {"token_type": "refresh"}, "sliding token": {"token_type": "sliding"}},
        algorithm="HS256",
    ),
    "Passport": Provider(
        """
        issuer = "https://app.example.com"
        takes_tokens_without_iss = true
        audiences = ["1"]
        scope_claim = "scopes"
        """,
        {"aud": "1", "jti": "j", "sub": "7", "scopes": ["phone"], "nbf": time.time() - 10.25},
        "7",
        {"another client": {"aud": "2"}, "client credentials of older versions": {"sub": ""}},
    ),
    "devise-jwt": Provider(
        """
        issuer = "https://app.example.com"
        takes_tokens_without_iss = true
        required_claims.scp = "user"
        """,
        {"sub": "7", "scp": "user", "jti": "j", "aud": None},
        "7",
        {"another scope": {"scp": "admin"}, "another audience": {"aud": "ios"}},
        algorithm="HS256",
    ),
}


def token_of(provider: Provider, changes: Claims) -> str:
    now = int(time.time())
    claims: Claims = {"iat": now - 5, "exp": now + 3600} | provider.claims | changes
    key: Any = {"RS256": rsa_key(), "ES256": ec_key(), "HS256": OctKey.import_key(SECRET)}[provider.algorithm]
    header = {"alg": provider.algorithm, "kid": "k1"} | ({} if provider.typ is None else {"typ": provider.typ})
    given = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode(header, given, key, [provider.algorithm])


@pytest.fixture
async def verifier(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[TokenVerifier]:
    provider = PROVIDERS[request.param]
    if provider.algorithm == "HS256":
        source = 'secret_env = "APP_SECRET"'
    else:
        key = rsa_key() if provider.algorithm == "RS256" else ec_key()
        source = f'pem = """{key.as_pem(private=False).decode()}"""'
    text = f"[[issuers]]\n{source}\n{provider.settings}"
    async with open_verifier(load(monkeypatch, tmp_path, text, APP_SECRET=SECRET)) as opened:
        yield opened


@pytest.mark.parametrize(("verifier", "name"), [(name, name) for name in PROVIDERS], indirect=["verifier"])
async def test_right_token_of_a_provider_logs_in(verifier: TokenVerifier, name: str) -> None:
    provider = PROVIDERS[name]

    assert (await verifier.verify(token_of(provider, {}), provider.header)).subject == provider.subject


WRONG = [(name, name, kind) for name, provider in PROVIDERS.items() for kind in [*provider.wrong, "expired"]]


@pytest.mark.parametrize(("verifier", "name", "kind"), WRONG, indirect=["verifier"])
async def test_wrong_token_of_a_provider_is_rejected(verifier: TokenVerifier, name: str, kind: str) -> None:
    provider = PROVIDERS[name]
    changes = provider.wrong.get(kind, {"exp": int(time.time()) - 3600})

    with pytest.raises(TokenRejected):
        await verifier.verify(token_of(provider, changes), provider.header)

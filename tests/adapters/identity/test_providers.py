"""Each identity provider's right token logs in, and the other tokens that the provider signs with the same key do not.

The issuers are those of the documentation, with a key of the test instead of the provider's.
"""

import re
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
from tests.support.configuration import load_file
from tests.support.provider_tokens import HOSTED, ID_TOKEN, Claims, Provider
from tests.support.tokens import ec_key, rsa_key
from tests.support.verification import SECRET

ROOT = Path(__file__).parents[3]
KEY_SOURCE = re.compile(r"(jwks_url|discovery_url|ca_file|pem_file|secret_env) =")
KEYCLOAK = "https://id.example.com/realms/staff"
CLUSTER = "https://kubernetes.default.svc.cluster.local"

PROVIDERS = HOSTED | {
    "keycloak": Provider(
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
    "clerk": Provider(
        {"iss": "https://clerk.example.com", "azp": "https://app.example.com", "sub": "user_1", "sts": "active"},
        "user_1",
        {"another origin": {"azp": "https://other.example.com"}, "pending session": {"sts": "pending"}},
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
        },
        algorithm="ES256",
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
        {"another organization": {"org_id": "org_2"}, "machine": {"sid": ..., "aud": "client_1"}},
        typ=None,
    ),
    "zitadel": Provider(
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
    "cloudflare-access": Provider(
        {
            "iss": "https://TEAM.cloudflareaccess.com",
            "aud": ["AUD_TAG_OF_THE_APPLICATION"],
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
    "google-iap": Provider(
        {
            "iss": "https://cloud.google.com/iap",
            "aud": "/projects/PROJECT_NUMBER/global/backendServices/SERVICE_ID",
            "sub": "accounts.google.com:1100",
            "email": "alice@example.com",
            "hd": "example.com",
        },
        "accounts.google.com:1100",
        {"another service": {"aud": "/projects/PROJECT_NUMBER/global/backendServices/OTHER_ID"}},
        algorithm="ES256",
        header="x-goog-iap-jwt-assertion",
    ),
    "kubernetes": Provider(
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
    "github-actions": Provider(
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
    "simplejwt": Provider(
        {"token_type": "access", "jti": "j", "user_id": 7},
        "7",
        {"refresh token": {"token_type": "refresh"}, "sliding token": {"token_type": "sliding"}},
        algorithm="HS256",
    ),
    "passport": Provider(
        {"aud": "1", "jti": "j", "sub": "7", "scopes": ["phone"], "nbf": time.time() - 10.25},
        "7",
        {"another client": {"aud": "2"}, "client credentials of older versions": {"sub": ""}},
    ),
    "devise-jwt": Provider(
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


def documented_issuers() -> dict[str, str]:
    """The issuers with a name in the documentation, without their key sources."""
    found = {}
    for page in ("identity-providers.md", "policy.md"):
        for block in re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
            for table in block.split("[[issuers]]")[1:]:
                own = [line for line in table.splitlines() if not KEY_SOURCE.match(line)]
                found.update({name: "\n".join(own) for name in re.findall(r'^name = "(.*)"', table, re.MULTILINE)})
    return found


@pytest.fixture
async def verifier(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[TokenVerifier]:
    algorithm = PROVIDERS[request.param].algorithm
    keys: dict[str, Any] = {"RS256": rsa_key(), "ES256": ec_key()}
    public = keys.get(algorithm)
    source = f'pem = """{public.as_pem(private=False).decode()}"""' if public else 'secret_env = "APP_SECRET"'
    text = f"[[issuers]]\n{source}\n{documented_issuers()[request.param]}"
    async with open_verifier(load_file(monkeypatch, tmp_path, text, APP_SECRET=SECRET)) as opened:
        yield opened


def test_every_documented_issuer_is_tested() -> None:
    assert set(PROVIDERS) == set(documented_issuers()) - {"aws-load-balancer"}  # test_load_balancer


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

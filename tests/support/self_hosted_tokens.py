"""Tokens of providers that you host, of proxies, workloads and application libraries, by the name of their preset.

The claims are those of the providers' documentation, with invented values.
"""

import time

from tests.support.provider_tokens import API, NONCE, OTHER, TYP, Claims, Provider

URL = "https://id.example.com"
KEYCLOAK = f"{URL}/realms/staff"
CLUSTER = "https://kubernetes.default.svc.cluster.local"
GITHUB = "https://token.actions.githubusercontent.com"
PHONES = "https://phones.example.com"
ROLES = "urn:zitadel:iam:org:project:roles"

_REQUESTED: Claims = {"iss": URL, "aud": PHONES, "sub": "u1", "client_id": "softphone", "scope": "openid phone"}
"""A token for an API that the client requests by its identifier (RFC 9068)."""

_REQUESTED_WRONG: dict[str, Claims] = {
    "another client": {"client_id": "other"},
    "another API": {"aud": "https://billing.example.com"},
    "ID token": {"aud": "softphone", "client_id": ..., "scope": ..., TYP: "JWT"},
}
_TYPED_WRONG = _REQUESTED_WRONG | {"ID token with the claims of an access token": {TYP: "JWT"}}

SELF_HOSTED = {
    "keycloak": Provider(
        {
            "iss": KEYCLOAK,
            "aud": ["phones", "account"],
            "sub": "u1",
            "typ": "Bearer",
            "azp": "softphone",
            "sid": "s1",
            "nonce": "n",
            "preferred_username": "alice",
            "realm_access": {"roles": ["phone"]},
        },
        "u1",
        {
            "ID token": {"typ": "ID", "aud": "softphone", "nonce": ...},
            "ID token with the audience": {"typ": "ID", "nonce": ...},
            "ID token with a hash": NONCE,
            "refresh token": {"typ": "Refresh", "aud": KEYCLOAK},
            "refresh token with the audience": {"typ": "Refresh"},
            "offline token": {"typ": "Offline"},
            "service account": {"sid": ..., "preferred_username": "service-account-batch", "azp": "batch"},
            "service account with a session": {"preferred_username": "service-account-batch"},
            "service account without a profile": {"sid": ..., "preferred_username": ...},
            "another audience": {"aud": "account"},
            "another realm": {"iss": f"{URL}/realms/other"},
        },
        right={"version 25": {"nonce": ...}, "another login": {"sid": "s2"}},
    ),
    "zitadel": Provider(
        {"iss": "https://my-org.zitadel.cloud", "aud": ["client-1", "project-1"], "sub": "1", "jti": "j"},
        "1",
        {
            "ID token": {"jti": ..., "azp": "client-1"},
            "another project": {"aud": ["client-2", "project-2"]},
            "another instance": {"iss": "https://other.zitadel.cloud"},
        },
        typ=None,
    ),
    "authentik": Provider(
        {
            "iss": f"{URL}/application/o/phones/",
            "aud": "client-1",
            "sub": "u1",
            "azp": "client-1",
            "uid": "t1",
            "nonce": "n",
            "scope": "openid phone",
            "preferred_username": "alice",
        },
        "u1",
        {
            "ID token": {"scope": ..., "nonce": ...},
            "another application": {"iss": f"{URL}/application/o/wiki/"},
            "another client": {"aud": "client-2"},
            "machine": {"preferred_username": "ak-phones-client_credentials"},
        },
        right={"without the scope profile": {"preferred_username": ...}, "without nonce": {"nonce": ...}},
        scopes="openid phone",
    ),
    "hydra": Provider(
        {**_REQUESTED, "aud": [PHONES], "scope": ..., "scp": ["openid", "phone"]},
        "u1",
        {**_REQUESTED_WRONG, "machine": {"sub": "softphone"}, "another server": {"iss": "https://other.example.com"}},
        scopes="openid phone",
    ),
    "fusionauth": Provider(
        {
            "iss": URL,
            "aud": API,
            "applicationId": API,
            "sub": "u1",
            "tty": "at",
            "authenticationType": "PASSWORD",
            "roles": ["phone"],
            "tid": OTHER,
        },
        "u1",
        {
            "ID token": {"tty": "id_token"},
            "another application": {"aud": OTHER, "applicationId": OTHER},
            "machine": {"aud": OTHER, "sub": "entity-1", "applicationId": ...},
            "another server": {"iss": "acme.com"},
        },
    ),
    "logto": Provider(
        {**_REQUESTED, "iss": "https://tenant.logto.app/oidc"},
        "u1",
        {
            **_TYPED_WRONG,
            "machine": {"sub": "softphone"},
            "organization token": {"aud": "urn:logto:organization:1"},
            "another tenant": {"iss": "https://other.logto.app/oidc"},
        },
        algorithm="ES384",
        typ="at+jwt",
        scopes="openid phone",
    ),
    "adfs": Provider(
        {
            "iss": "http://sts.example.com/adfs/services/trust",
            "aud": f"microsoft:identityserver:{PHONES}",
            "sub": "xBZpMT9zNKNyMjFsj4CF80crrwS/ATrfkgm4n4iYDFw=",
            "appid": "softphone",
            "apptype": "Public",
            "scp": "openid",
        },
        "xBZpMT9zNKNyMjFsj4CF80crrwS/ATrfkgm4n4iYDFw=",
        {
            "ID token": {"iss": "https://sts.example.com/adfs", "aud": "softphone", "scp": ..., "appid": ...},
            "ID token with the issuer of access tokens": {"aud": "softphone", "scp": ..., "appid": ...},
            "machine": {"sub": ..., "scp": ..., "apptype": "Confidential"},
            "machine with a subject": {"scp": ...},
            "another client": {"appid": "other"},
            "token for userinfo": {"aud": "urn:microsoft:userinfo"},
        },
        scopes="openid",
    ),
    "duende": Provider(
        {**_REQUESTED, "scope": ["openid", "phone"], "aud": [PHONES], "sid": "s1"},
        "u1",
        {**_TYPED_WRONG, "machine": {"sub": ...}, "another server": {"iss": "https://other.example.com"}},
        typ="at+jwt",
        scopes="openid phone",
    ),
    "spring": Provider(
        {"iss": URL, "aud": "softphone", "sub": "alice", "scope": ["openid", "phone"], "jti": "j"},
        "alice",
        {
            "ID token": {"scope": ..., "azp": "softphone", "sid": "s1"},
            "machine": {"sub": "softphone"},
            "another client": {"aud": "other"},
            "another server": {"iss": "https://other.example.com"},
        },
        typ=None,
        scopes="openid phone",
    ),
    "better-auth": Provider(
        {"iss": "https://app.example.com", "aud": "https://app.example.com", "sub": "u1", "email": "alice@example.com"},
        "u1",
        {
            "ID token for a client": {"aud": "client-1"},
            "session cookie": {"iss": ..., "aud": ..., "session": {"id": "s1"}},
            "another server": {"iss": "https://other.example.com", "aud": "https://other.example.com"},
        },
        algorithm="EdDSA",
        typ=None,
    ),
}

PROXIES = {
    "cloudflare-access": Provider(
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
            "global session": {"type": "org"},
            "another application": {"aud": ["0" * 64]},
            "another team": {"iss": "https://other.cloudflareaccess.com"},
        },
        typ=None,
        header="cf-access-jwt-assertion",
    ),
    "google-iap": Provider(
        {
            "iss": "https://cloud.google.com/iap",
            "aud": "/projects/1234567890/global/backendServices/42",
            "sub": "accounts.google.com:1100",
            "email": "alice@example.com",
            "hd": "example.com",
        },
        "accounts.google.com:1100",
        {
            "another service": {"aud": "/projects/1234567890/global/backendServices/43"},
            "Google's ID token": {"iss": "https://accounts.google.com"},
            "another organization": {"hd": "example.org"},
            "machine": {"email": "agent@project.iam.gserviceaccount.com"},
        },
        algorithm="ES256",
        header="x-goog-iap-jwt-assertion",
    ),
}

WORKLOADS = {
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
            "another namespace": {"kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "agent"}}},
            "token of a secret": {"iss": "kubernetes/serviceaccount", "exp": ..., "aud": ...},
        },
        typ=None,
    ),
    "github-actions": Provider(
        {
            "iss": GITHUB,
            "aud": PHONES,
            "sub": "repo:octo/phones:ref:refs/heads/main",
            "repository": "octo/phones",
            "ref": "refs/heads/main",
        },
        "repo:octo/phones:ref:refs/heads/main",
        {
            "another repository": {"repository": "octo/other"},
            "pull request": {"ref": "refs/pull/1/merge"},
            "another audience": {"aud": "https://github.com/octo"},
            "an enterprise's issuer": {"iss": f"{GITHUB}/octo"},
        },
    ),
    "gitlab-ci": Provider(
        {
            "iss": "https://gitlab.com",
            "aud": PHONES,
            "sub": "project_path:octo/phones:ref_type:branch:ref:main",
            "project_path": "octo/phones",
            "ref": "main",
            "ref_type": "branch",
            "ref_protected": "true",
        },
        "project_path:octo/phones:ref_type:branch:ref:main",
        {
            "another project": {"project_path": "octo/other"},
            "another branch": {"ref": "feature"},
            "tag with the branch's name": {"ref_type": "tag"},
            "merge request from a branch of this name in a fork": {"ref_protected": "false"},
            "another audience": {"aud": "https://vault.example.com"},
            "another instance": {"iss": "https://gitlab.example.com"},
        },
    ),
}

APPLICATIONS = {
    "simplejwt": Provider(
        {"token_type": "access", "jti": "j", "user_id": "7"},
        "7",
        {
            "refresh token": {"token_type": "refresh"},
            "sliding token": {"token_type": "sliding"},
            "another issuer": {"iss": "https://other.example.com"},
        },
        algorithm="HS256",
    ),
    "passport": Provider(
        {"aud": "1", "jti": "j", "sub": "7", "scopes": ["phone"], "nbf": time.time() - 10.25},
        "7",
        {
            "another client": {"aud": "2"},
            "client credentials": {"sub": "1"},
            "client credentials of older versions": {"sub": ""},
        },
        scopes="phone",
    ),
    "devise-jwt": Provider(
        {"sub": "7", "scp": "user", "jti": "j", "aud": None},
        "7",
        {"another scope": {"scp": "admin"}, "another audience": {"aud": "ios"}},
        algorithm="HS256",
    ),
}

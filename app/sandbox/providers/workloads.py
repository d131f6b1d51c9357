"""Tokens that an authenticating proxy adds, and tokens of programs: cluster workloads and CI jobs."""

from types import MappingProxyType

from app.sandbox.provider import Provider
from app.sandbox.providers.common_claims import API, OTHER_ISSUER

LOAD_BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/phones/0123456789abcdef"
TAG = "32eafc7626e737917dd8d3b1d2bda1f2b8de6a08c1f3eb6c2ee4e7ab5e1c4a4b"
BACKEND = "/projects/123456789012/global/backendServices/1234567890123456789"

WORKLOADS = MappingProxyType(
    {
        "cloudflare-access": Provider(
            "Cloudflare Access",
            {"sub": "$uuid", "aud": [TAG], "email": "$email", "type": "app", "identity_nonce": "6ei69kawdKzMIAPF"},
            {
                "machine": {"sub": "", "email": ..., "common_name": "e367826f93b8d71185e03fe518aff3b4.access"},
                "other-client": {"aud": ["0" * 64]},
                "other-tenant": {"iss": "https://other.cloudflareaccess.com"},
            },
            {
                "provider": "cloudflare-access",
                "issuer": "$issuer",
                "jwks_url": "$base/cdn-cgi/access/certs",
                "audiences": [TAG],
            },
            jwks="/cdn-cgi/access/certs",
            header="Cf-Access-Jwt-Assertion",
            discovery=None,
            typ=None,
        ),
        "google-iap": Provider(
            "Google Identity-Aware Proxy",
            {"sub": "accounts.google.com:110$number", "aud": BACKEND, "email": "$email", "hd": "example.com"},
            {
                "other-client": {"aud": "/projects/123456789012/global/backendServices/2"},
                "other-tenant": {"aud": "/projects/2/global/backendServices/1234567890123456789"},
            },
            {
                "provider": "google-iap",
                "issuer": "$issuer",
                "jwks_url": "$base/iap/verify/public_key-jwk",
                "audiences": [BACKEND],
            },
            path="/iap",
            header="x-goog-iap-jwt-assertion",
            jwks="/iap/verify/public_key-jwk",
            discovery=None,
            algorithm="ES256",
        ),
        "aws-alb": Provider(
            "AWS application load balancer",
            {"sub": "$uuid", "email": "$email", "client": "client-1", "signer": LOAD_BALANCER},
            {
                "other-client": {"client": "client-2"},
                "other-tenant": {"iss": "$base/eu-west-1_OTHER"},
                "other-signer": {"signer": LOAD_BALANCER.replace("123456789012", "210987654321")},
            },
            {
                "provider": "aws-alb",
                "issuer": "$issuer",
                "jwks_url": "$base",
                "client_id": "client-1",
                "signer": LOAD_BALANCER,
            },
            path="/eu-west-1_EXAMPLE",
            header="x-amzn-oidc-data",
            jwks=None,
            discovery=None,
            pem="/{kid}",
            algorithm="ES256",
        ),
        "kubernetes": Provider(
            "Kubernetes service accounts",
            {
                "sub": "system:serviceaccount:phones:$user",
                "aud": ["dialtone"],
                "kubernetes.io": {"namespace": "phones", "serviceaccount": {"name": "$user", "uid": "$uuid"}},
            },
            {
                "other-client": {"aud": ["https://kubernetes.default.svc.cluster.local"]},
                "other-namespace": {"kubernetes.io": {"namespace": "default"}},
                "other-tenant": OTHER_ISSUER,
            },
            {
                "provider": "kubernetes",
                "issuer": "$issuer",
                "jwks_url": "$base/openid/v1/jwks",
                "audiences": ["dialtone"],
                "namespace": "phones",
            },
            jwks="/openid/v1/jwks",
            typ=None,
        ),
        "github-actions": Provider(
            "GitHub Actions",
            {
                "sub": "repo:octo/phones:ref:refs/heads/main",
                "aud": API,
                "repository": "octo/phones",
                "ref": "refs/heads/main",
                "actor": "$user",
            },
            {
                "other-client": {"aud": "https://github.com/octo"},
                "other-tenant": {"sub": "repo:octo/other:ref:refs/heads/main", "repository": "octo/other"},
                "pull-request": {"sub": "repo:octo/phones:pull_request", "ref": "refs/pull/1/merge"},
            },
            {
                "provider": "github-actions",
                "issuer": "$issuer",
                "audiences": [API],
                "repository": "octo/phones",
                "ref": "refs/heads/main",
            },
            jwks="/.well-known/jwks",
        ),
        "gitlab-ci": Provider(
            "GitLab CI",
            {
                "sub": "project_path:octo/phones:ref_type:branch:ref:main",
                "aud": API,
                "project_path": "octo/phones",
                "ref": "main",
                "ref_type": "branch",
                "ref_protected": "true",
                "user_login": "$user",
            },
            {
                "other-client": {"aud": "https://gitlab.com"},
                "other-tenant": {"project_path": "octo/other"},
                "other-branch": {"ref": "test"},
            },
            {"provider": "gitlab-ci", "url": "$base", "audiences": [API], "project_path": "octo/phones", "ref": "main"},
            jwks="/oauth/discovery/keys",
        ),
    }
)

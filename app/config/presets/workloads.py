"""Presets for workloads: service accounts and CI jobs. Each names the documentation of its facts."""

from app.config.presets.preset import Preset

WORKLOADS = {
    "kubernetes": Preset(
        "https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens",
        {
            "issuer": "https://kubernetes.default.svc.cluster.local",
            "jwks_url": "https://kubernetes.default.svc/openid/v1/jwks",
            "ca_file": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "required_claims": {
                "/kubernetes.io/namespace": {"one_of": "$namespace"},
                "/kubernetes.io/serviceaccount/name": {"one_of": "$service_account"},
            },
        },
        optional=frozenset({"service_account"}),
    ),
    "github-actions": Preset(
        "https://docs.github.com/en/actions/reference/security/oidc",
        {
            "issuer": "https://token.actions.githubusercontent.com",
            "required_claims": {"repository": {"one_of": "$repository"}, "ref": {"one_of": "$ref"}},
        },
    ),
    "gitlab-ci": Preset(
        "https://docs.gitlab.com/ci/secrets/id_token_authentication/",
        {
            "issuer": "$url",
            "required_claims": {
                "project_path": {"one_of": "$project_path"},
                "ref": {"one_of": "$ref"},
                "ref_type": "branch",
                "ref_protected": "true",  # a merge request from a fork has the `ref` of its own branch
            },
        },
        defaults={"url": "https://gitlab.com"},
    ),
}

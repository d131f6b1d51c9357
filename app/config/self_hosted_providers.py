"""Presets for providers that you host, proxies that add tokens, workloads and application libraries.

Each names the documentation of its facts.
"""

from app.config.preset import CLIENT, NOT_THE_CLIENT, SOME_TEXT, Preset

SELF_HOSTED = {
    "keycloak": Preset(
        "https://www.keycloak.org/docs/latest/server_admin/#_audience",
        {
            "issuer": "$url/realms/$realm",
            "allowed_foreign_claims": ["nonce"],  # in access tokens before version 25
            "required_claims": {
                "typ": "Bearer",
                "sid": SOME_TEXT,
                "azp": CLIENT,
                "preferred_username": {"not": {"glob": "service-account-*"}},
            },
            "logout_audiences": "$client_id",
        },
        optional=frozenset({"client_id"}),
    ),
    "zitadel": Preset(
        "https://zitadel.com/docs/apis/openidoauth/claims",
        {
            "issuer": "$url",
            "audiences": "$project_id",
            "required_claims": {"jti": SOME_TEXT},  # absent from ID tokens
        },
    ),
    "authentik": Preset(
        "https://docs.goauthentik.io/add-secure-apps/providers/oauth2/",
        {
            "issuer": "$url/application/o/$application/",
            "audiences": "$client_id",
            "allowed_foreign_claims": ["nonce"],
            "required_claims": {
                "scope": SOME_TEXT,  # absent from ID tokens
                "preferred_username": {"not": {"glob": "ak-*-client_credentials"}},
            },
        },
    ),
    "hydra": Preset(
        "https://www.ory.com/docs/oauth2-oidc/jwt-access-token",
        {
            "issuer": "$url",
            "scope_claim": "scp",
            "required_claims": {"client_id": CLIENT, "sub": NOT_THE_CLIENT},
            "logout_audiences": "$client_id",
        },
    ),
    "fusionauth": Preset(
        "https://fusionauth.io/docs/lifecycle/authenticate-users/oauth/tokens",
        {
            "issuer": "$url",
            "jwks_url": "$url/.well-known/jwks.json",
            "audiences": "$client_id",
            "required_claims": {"tty": "at"},
        },
    ),
    "logto": Preset(
        "https://docs.logto.io/authorization/validate-access-tokens",
        {
            "issuer": "$url/oidc",
            "algorithms": ["ES384", "RS256"],
            "token_types": ["at+jwt"],
            "required_claims": {"client_id": CLIENT, "sub": NOT_THE_CLIENT},
            "logout_audiences": "$client_id",
        },
    ),
    "adfs": Preset(
        "https://learn.microsoft.com/en-us/windows-server/identity/ad-fs/development/ad-fs-openid-connect-oauth-concepts",
        {
            "issuer": "http://$domain/adfs/services/trust",  # `access_token_issuer` of the discovery document
            "jwks_url": "https://$domain/adfs/discovery/keys",
            "scope_claim": "scp",
            "required_claims": {"scp": SOME_TEXT, "appid": CLIENT},
        },
    ),
    "duende": Preset(
        "https://docs.duendesoftware.com/identityserver/apis/aspnetcore/jwt/",
        {
            "issuer": "$url",
            "token_types": ["at+jwt"],
            "required_claims": {"client_id": CLIENT},  # tokens of applications have no `sub`
            "logout_audiences": "$client_id",
        },
    ),
    "spring": Preset(
        "https://docs.spring.io/spring-authorization-server/reference/core-model-components.html",
        {
            "issuer": "$url",
            "audiences": "$client_id",
            "required_claims": {"scope": SOME_TEXT, "sub": NOT_THE_CLIENT},  # `scope` is absent from ID tokens
        },
    ),
    "better-auth": Preset(
        "https://better-auth.com/docs/plugins/jwt",
        {
            "issuer": "$url",
            "jwks_url": "$url/api/auth/jwks",
            "algorithms": ["EdDSA"],
            "audiences": ["$url"],
        },
    ),
}

PROXIES = {
    "cloudflare-access": Preset(
        "https://developers.cloudflare.com/cloudflare-one/identity/authorization-cookie/application-token/",
        {
            "issuer": "https://$domain",
            "jwks_url": "https://$domain/cdn-cgi/access/certs",
            "header": "Cf-Access-Jwt-Assertion",
            "required_claims": {"type": "app"},  # service tokens have an empty `sub`
        },
    ),
    "google-iap": Preset(
        "https://cloud.google.com/iap/docs/signed-headers-howto",
        {
            "issuer": "https://cloud.google.com/iap",
            "jwks_url": "https://www.gstatic.com/iap/verify/public_key-jwk",
            "algorithms": ["ES256"],
            "header": "x-goog-iap-jwt-assertion",
            "required_claims": {
                "email": {"not": {"glob": "*.gserviceaccount.com"}},
                "hd": {"one_of": "$hosted_domain"},
            },
        },
        optional=frozenset({"hosted_domain"}),
    ),
    "aws-alb": Preset(
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html",
        {
            "issuer": "https://cognito-idp.$user_pool_region.amazonaws.com/$user_pool_id",
            "audiences": "$client_id",
            "header": "x-amzn-oidc-data",
        },
        requires=("signer",),
    ),
}

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

APPLICATIONS = {
    "simplejwt": Preset(
        "https://django-rest-framework-simplejwt.readthedocs.io/en/latest/settings.html",
        {
            "issuer": "simplejwt",
            "takes_tokens_without_iss": True,
            "subject_claim": "user_id",
            "required_claims": {"token_type": "access"},
        },
        requires=("secret_env",),
    ),
    "passport": Preset(
        "https://laravel.com/docs/passport",
        {
            "issuer": "passport",
            "takes_tokens_without_iss": True,
            "audiences": "$client_id",
            "scope_claim": "scopes",
            "required_claims": {"sub": NOT_THE_CLIENT},
        },
        requires=("pem",),
    ),
    "devise-jwt": Preset(
        "https://github.com/waiting-for-dev/devise-jwt",
        {"issuer": "devise-jwt", "takes_tokens_without_iss": True, "required_claims": {"scp": "user"}},
        requires=("secret_env",),
    ),
}

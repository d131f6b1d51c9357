"""Presets for identity providers that you host. Each names the documentation of its facts."""

from app.config.presets.preset import CLIENT, NOT_THE_CLIENT, SOME_TEXT, Preset

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

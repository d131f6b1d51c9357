"""Presets for identity providers that are hosted services. Each names the documentation of its facts."""

from app.config.presets.preset import CLIENT, NO_ACTOR, NOT_THE_CLIENT, SOME_TEXT, Preset

_ENTRA = {
    "subject_claim": "oid",  # `sub` differs between applications
    "scope_claim": "scp",
    "max_token_bytes": 12288,  # a user with 200 groups
}

HOSTED = {
    "auth0": Preset(
        "https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles",
        {
            "issuer": "https://$domain/",
            "required_claims": {"sub": {"glob": "*|*"}},  # CONNECTION|ID; applications are CLIENT@clients
        },
    ),
    "entra": Preset(
        "https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference",
        {
            "issuer": "https://login.microsoftonline.com/$tenant_id/v2.0",
            **_ENTRA,
            "required_claims": {"scp": SOME_TEXT, "azp": CLIENT},  # `scp` is absent from ID and application tokens
        },
        optional=frozenset({"client_id"}),
        has_guid_audience=True,
    ),
    "entra-multitenant": Preset(
        "https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens#validate-the-issuer",
        {
            "issuer": "https://login.microsoftonline.com/{tid}/v2.0",
            "jwks_url": "https://login.microsoftonline.com/common/discovery/v2.0/keys",
            **_ENTRA,
            "required_claims": {"scp": SOME_TEXT, "azp": CLIENT},
        },
        requires=("tenants", "audiences"),
        optional=frozenset({"client_id"}),
        has_guid_audience=True,
    ),
    "entra-v1": Preset(
        "https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference",
        {
            "issuer": "https://sts.windows.net/$tenant_id/",
            "discovery_url": "https://login.microsoftonline.com/$tenant_id/.well-known/openid-configuration",
            **_ENTRA,
            "required_claims": {"scp": SOME_TEXT, "appid": CLIENT},
        },
        optional=frozenset({"client_id"}),
    ),
    "entra-b2c": Preset(
        "https://learn.microsoft.com/en-us/azure/active-directory-b2c/tokens-overview",
        {
            "issuer": "https://$domain/$tenant_id/v2.0/",
            "discovery_url": "https://$domain/$tenant_id/$user_flow/v2.0/.well-known/openid-configuration",
            "scope_claim": "scp",
            "required_claims": {"scp": SOME_TEXT, "tfp": "$user_flow", "azp": CLIENT},
        },
        optional=frozenset({"client_id"}),
        has_guid_audience=True,
    ),
    "okta": Preset(
        "https://developer.okta.com/docs/reference/api/oidc/#access-token-payload",
        {
            "issuer": "https://$domain/oauth2/$authorization_server",
            "audiences": ["api://default"],
            "subject_claim": "uid",  # absent from tokens of applications
            "scope_claim": "scp",
            "required_claims": {"cid": CLIENT, "uid": SOME_TEXT},  # also if another claim names the user
        },
        defaults={"authorization_server": "default"},
    ),
    "cognito": Preset(
        "https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html",
        {
            "issuer": "https://cognito-idp.$user_pool_region.amazonaws.com/$user_pool_id",
            "audiences": "$client_id",
            "audience_claims": ["client_id"],
            "required_claims": {"token_use": "access", "sub": NOT_THE_CLIENT},
        },
    ),
    "cognito-id": Preset(
        "https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html",
        {
            "issuer": "https://cognito-idp.$user_pool_region.amazonaws.com/$user_pool_id",
            "audiences": "$client_id",
            "token_kind": "id",
            "required_claims": {"token_use": "id"},
        },
    ),
    "google": Preset(
        "https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken",
        {
            "issuer": "https://accounts.google.com",
            "audiences": "$client_id",
            "token_kind": "id",
            "required_claims": {"hd": {"one_of": "$hosted_domain"}},
        },
    ),
    "firebase": Preset(
        "https://firebase.google.com/docs/auth/admin/verify-id-tokens#verify_id_tokens_using_a_third-party_jwt_library",
        {
            "issuer": "https://securetoken.google.com/$project_id",
            "audiences": "$project_id",
            "algorithms": ["RS256"],
            "jwks_url": "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
            "required_claims": {"/firebase/sign_in_provider": {"not": "anonymous"}},
        },
    ),
    "clerk": Preset(
        "https://clerk.com/docs/guides/sessions/session-tokens",
        {
            "issuer": "https://$domain",
            "jwks_url": "https://$domain/.well-known/jwks.json",
            "audiences": "$origin",
            "audience_claims": ["azp"],
            "required_claims": {"sub": {"glob": "user_*"}, "sts": {"not": "pending"}, "/act/sub": NO_ACTOR},
        },
    ),
    "supabase": Preset(
        "https://supabase.com/docs/guides/auth/jwt-fields",
        {
            "issuer": "https://$project_id.supabase.co/auth/v1",
            "jwks_url": "https://$project_id.supabase.co/auth/v1/.well-known/jwks.json",
            "audiences": ["authenticated"],
            "required_claims": {"role": "authenticated", "is_anonymous": {"not": True}},
        },
    ),
    "workos": Preset(
        "https://workos.com/docs/reference/authkit/session-tokens",
        {
            "issuer": "https://api.workos.com/user_management/$client_id",
            "jwks_url": "https://api.workos.com/sso/jwks/$client_id",
            "required_claims": {
                "sid": {"glob": "session_*"},  # absent from tokens of applications
                "org_id": {"one_of": "$organization_id"},
                "/act/sub": NO_ACTOR,
            },
        },
        requires=(),
        optional=frozenset({"organization_id"}),
    ),
    "descope": Preset(
        "https://docs.descope.com/session-overview",
        {
            "issuer": "$project_id",
            "jwks_url": "https://api.descope.com/$project_id/.well-known/jwks.json",
            # DSR: refresh token; K...: access key
            "required_claims": {"drn": "DS", "sub": {"glob": "U*"}, "/act/sub": NO_ACTOR},
        },
        requires=(),
    ),
    "stytch": Preset(
        "https://stytch.com/docs/consumer-auth/manage-sessions/jwts-and-tokens",
        {
            "issuer": "stytch.com/$project_id",
            "jwks_url": "https://$stytch_host/v1/sessions/jwks/$project_id",
            "audiences": "$project_id",
            "required_claims": {"https://stytch.com/session": {"has_key": "id"}, "sub": {"glob": "user-*"}},
        },
    ),
    "stytch-b2b": Preset(
        "https://stytch.com/docs/multi-tenant-auth/manage-sessions/validate-session",
        {
            "issuer": "stytch.com/$project_id",
            "jwks_url": "https://$stytch_host/v1/b2b/sessions/jwks/$project_id",
            "audiences": "$project_id",
            "required_claims": {"https://stytch.com/session": {"has_key": "id"}, "sub": {"glob": "member-*"}},
        },
    ),
    "pingone": Preset(
        "https://developer.pingidentity.com/pingone-api/foundations/authentication-concepts/"
        "access-tokens-and-id-tokens/token-claims.html",
        {
            "issuer": "https://$domain/$environment_id/as",
            "required_claims": {"client_id": CLIENT},  # tokens of applications have no `sub`
        },
        defaults={"domain": "auth.pingone.com"},
    ),
}

"""Hosted identity providers."""

from types import MappingProxyType

from app.sandbox.provider import Claims, Provider
from app.sandbox.providers.common_claims import API, ID, OPAQUE, OTHER_API, OTHER_ISSUER

TENANT, OTHER_TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "33334444-2b34-4da1-9baa-8bc8c9d6a490"
GUID, OTHER_GUID = "11112222-bbbb-3333-cccc-4444dddd5555", "00000003-0000-0000-c000-000000000000"
COGNITO_CLIENT, OKTA_CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado", "0oa1c01m77heEXUZt2p7"
GOOGLE_CLIENT = "1234567890-example.apps.googleusercontent.com"
POOL = "eu-west-1_EXAMPLE"

ENTRA: Claims = {"oid": "$uuid", "sub": "$hex", "tid": TENANT, "scp": "phone"}
ENTRA_KINDS: dict[str, Claims | str] = {
    "id": {"scp": ..., "preferred_username": "$email"},
    "refresh": OPAQUE,
    "machine": {"scp": ..., "roles": ["Calls.All"], "idtyp": "app"},
    "other-client": {"aud": OTHER_GUID},
    "other-tenant": {"iss": f"$base/{OTHER_TENANT}/v2.0", "tid": OTHER_TENANT},
}
HOSTED = MappingProxyType(
    {
        "auth0": Provider(
            "Auth0",
            {"sub": "auth0|$hex", "aud": [API, "$base/userinfo"], "azp": "client-1", "scope": "openid phone"},
            {
                "id": {"aud": "client-1", "azp": ..., "scope": ..., "sid": "$sid", "email": "$email", **ID},
                "refresh": OPAQUE,
                "machine": {"sub": "client-2@clients", "azp": "client-2", "gty": "client-credentials", "aud": API},
                "other-client": {"aud": OTHER_API},
                "other-tenant": {"iss": "https://other.eu.auth0.com/"},
            },
            {"provider": "auth0", "issuer": "$issuer", "audiences": [API]},
            path="/",
            jwk={"x5c": "$x5c"},
        ),
        "entra": Provider(
            "Entra ID, access tokens of version 2",
            {**ENTRA, "aud": GUID, "ver": "2.0"},
            ENTRA_KINDS,
            {"provider": "entra", "issuer": "$issuer", "audiences": [GUID]},
            path=f"/{TENANT}/v2.0",
            jwks=f"/{TENANT}/discovery/v2.0/keys",
            jwk={"alg": ..., "x5c": "$x5c", "issuer": "$issuer"},
        ),
        "entra-v1": Provider(
            "Entra ID, access tokens of version 1",
            {**ENTRA, "aud": f"api://{GUID}", "appid": GUID, "ver": "1.0", "upn": "$email"},
            {**ENTRA_KINDS, "id": {"scp": ..., "aud": GUID}, "other-tenant": {"iss": f"$base/{OTHER_TENANT}/"}},
            {
                "provider": "entra-v1",
                "issuer": "$issuer",
                "discovery_url": f"$base/{TENANT}/.well-known/openid-configuration",
                "audiences": [f"api://{GUID}"],
            },
            path=f"/{TENANT}/",
            jwks="/common/discovery/keys",
            jwk={"alg": ..., "x5c": "$x5c"},
        ),
        "entra-multitenant": Provider(
            "Entra ID, several tenants",
            {"iss": f"$base/{TENANT}/v2.0", **ENTRA, "aud": GUID, "ver": "2.0"},
            ENTRA_KINDS,
            {
                "provider": "entra-multitenant",
                "issuer": "$base/{tid}/v2.0",
                "jwks_url": "$base/common/discovery/v2.0/keys",
                "tenants": [TENANT],
                "audiences": [GUID],
            },
            jwks="/common/discovery/v2.0/keys",
            discovery="/common/v2.0/.well-known/openid-configuration",
            discovery_issuer="$base/{tenantid}/v2.0",
            jwk={"alg": ..., "x5c": "$x5c", "issuer": "$base/{tenantid}/v2.0"},
        ),
        "entra-b2c": Provider(
            "Azure AD B2C",
            {"sub": "$uuid", "aud": GUID, "scp": "phone", "tfp": "B2C_1_sign_in", "ver": "1.0"},
            {
                "id": {"scp": ..., "nonce": "n"},
                "refresh": OPAQUE,
                "other-client": {"aud": OTHER_GUID},
                "other-policy": {"tfp": "B2C_1_reset"},
                "other-tenant": {"iss": f"$base/{OTHER_TENANT}/v2.0/"},
            },
            {
                "provider": "entra-b2c",
                "issuer": "$issuer",
                "discovery_url": f"$base/{TENANT}/B2C_1_sign_in/v2.0/.well-known/openid-configuration",
                "user_flow": "B2C_1_sign_in",
                "audiences": [GUID],
            },
            path=f"/{TENANT}/v2.0/",
            jwks="/staff.onmicrosoft.com/B2C_1_sign_in/discovery/v2.0/keys",
            discovery=f"/{TENANT}/B2C_1_sign_in/v2.0/.well-known/openid-configuration",
            jwk={"alg": ...},
        ),
        "okta": Provider(
            "Okta, custom authorization server",
            {"sub": "$email", "uid": "00u$number", "aud": "api://default", "cid": OKTA_CLIENT, "scp": ["phone"]},
            {
                "id": {"aud": OKTA_CLIENT, "cid": ..., "scp": ..., "sub": "00u$number", **ID},
                "refresh": OPAQUE,
                "machine": {"uid": ..., "sub": "0oa2", "cid": "0oa2"},
                "other-client": {"cid": "0oa2"},
                "other-tenant": {"iss": "$base/oauth2/other"},
            },
            {"provider": "okta", "issuer": "$issuer", "client_id": OKTA_CLIENT},
            path="/oauth2/default",
            jwks="/oauth2/default/v1/keys",
            typ=None,
        ),
        "cognito": Provider(
            "Amazon Cognito, access tokens",
            {"sub": "$uuid", "client_id": COGNITO_CLIENT, "token_use": "access", "scope": "phones/call"},
            {
                "id": {"client_id": ..., "scope": ..., "aud": COGNITO_CLIENT, "token_use": "id", "email": "$email"},
                "refresh": OPAQUE,
                "machine": {"sub": COGNITO_CLIENT},
                "other-client": {"client_id": "1example23456789"},
                "other-tenant": {"iss": "$base/eu-west-1_OTHER"},
            },
            {"provider": "cognito", "issuer": "$issuer", "client_id": COGNITO_CLIENT},
            path=f"/{POOL}",
            jwks=f"/{POOL}/.well-known/jwks.json",
            typ=None,
        ),
        "cognito-id": Provider(
            "Amazon Cognito, ID tokens",
            {"sub": "$uuid", "aud": COGNITO_CLIENT, "token_use": "id", "cognito:groups": ["staff"], **ID},
            {
                "access": {"aud": ..., "client_id": COGNITO_CLIENT, "token_use": "access", "nonce": ...},
                "refresh": OPAQUE,
                "other-client": {"aud": "1example23456789"},
                "other-tenant": {"iss": "$base/eu-west-1_OTHER"},
            },
            {"provider": "cognito-id", "issuer": "$issuer", "client_id": COGNITO_CLIENT},
            path=f"/{POOL}",
            jwks=f"/{POOL}/.well-known/jwks.json",
            typ=None,
        ),
        "google": Provider(
            "Google, ID tokens",
            {"sub": "11000000000000000000$number", "aud": GOOGLE_CLIENT, "azp": GOOGLE_CLIENT, "hd": "example.com"}
            | ID,
            {
                "access": "ya29.opaque-access-token",
                "refresh": OPAQUE,
                "other-client": {"aud": "2-other.apps.googleusercontent.com"},
                "other-organization": {"hd": "example.org"},
                "private-account": {"hd": ...},
            },
            {"provider": "google", "issuer": "$issuer", "client_id": GOOGLE_CLIENT, "hosted_domain": "example.com"},
            jwks="/oauth2/v3/certs",
        ),
        "firebase": Provider(
            "Firebase",
            {
                "sub": "$hex",
                "user_id": "$hex",
                "aud": "my-app",
                "firebase": {"identities": {"email": ["$email"]}, "sign_in_provider": "password"},
            },
            {
                "refresh": OPAQUE,
                "anonymous": {"firebase": {"identities": {}, "sign_in_provider": "anonymous"}},
                "session-cookie": {"iss": "https://session.firebase.google.com/my-app"},
                "other-tenant": {"iss": "$base/other-app", "aud": "other-app"},
            },
            {
                "provider": "firebase",
                "issuer": "$issuer",
                "jwks_url": "$base/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
                "project_id": "my-app",
            },
            path="/my-app",
            jwks="/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
            pem="/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
        ),
        "clerk": Provider(
            "Clerk",
            {"sub": "user_$hex", "azp": "https://app.example.com", "sid": "sess_$hex", "sts": "active", "v": 2},
            {
                "id": {"azp": ..., "sts": ..., "sid": ..., "aud": "client-1", **ID},
                "refresh": OPAQUE,
                "machine": "mt_opaque-machine-token",
                "other-client": {"azp": "https://other.example.com"},
                "other-tenant": OTHER_ISSUER,
                "pending-session": {"sts": "pending"},
            },
            {
                "provider": "clerk",
                "issuer": "$issuer",
                "jwks_url": "$base/.well-known/jwks.json",
                "origin": "https://app.example.com",
            },
        ),
        "supabase": Provider(
            "Supabase",
            {"sub": "$uuid", "aud": "authenticated", "role": "authenticated", "is_anonymous": False, "email": "$email"},
            {
                "refresh": OPAQUE,
                "machine": {"role": "service_role", "sub": ..., "aud": ...},
                "anonymous": {"is_anonymous": True, "email": ""},
                "anonymous-key": {"iss": "supabase", "role": "anon", "sub": ..., "aud": ...},
                "other-tenant": {"iss": "https://other.supabase.co/auth/v1"},
            },
            {"provider": "supabase", "issuer": "$issuer", "jwks_url": "$base/auth/v1/.well-known/jwks.json"},
            path="/auth/v1",
            jwks="/auth/v1/.well-known/jwks.json",
            algorithm="ES256",
            jwk={"ext": True, "key_ops": ["verify"]},
        ),
        "workos": Provider(
            "WorkOS AuthKit",
            {"sub": "user_$hex", "sid": "session_$hex", "org_id": "org_1", "role": "member", "permissions": ["phone"]},
            {
                "refresh": OPAQUE,
                "machine": {"sid": ..., "sub": "client_2", "aud": "client_2"},
                "impersonation": {"act": {"sub": "admin@example.com"}},
                "other-client": {"iss": "$base/user_management/client_2"},
                "other-tenant": {"org_id": "org_2"},
            },
            {
                "provider": "workos",
                "issuer": "$issuer",
                "jwks_url": "$base/sso/jwks/client_1",
                "organization_id": "org_1",
            },
            path="/user_management/client_1",
            jwks="/sso/jwks/client_1",
            discovery=None,
            typ=None,
        ),
        "descope": Provider(
            "Descope, session tokens",
            {
                "iss": "P2EXAMPLE",
                "sub": "U2$hex",
                "drn": "DS",
                "amr": ["email"],
                "tenants": {"t1": {"roles": ["agent"]}},
            },
            {
                "refresh": {"drn": "DSR"},
                "machine": {"sub": "K2$hex", "amr": ...},
                "other-tenant": {"iss": "P2OTHER"},
            },
            {"provider": "descope", "project_id": "P2EXAMPLE", "jwks_url": "$base/P2EXAMPLE/.well-known/jwks.json"},
            jwks="/P2EXAMPLE/.well-known/jwks.json",
            discovery=None,
        ),
        "stytch": Provider(
            "Stytch, session JWTs",
            {
                "iss": "stytch.com/project-test-1",
                "sub": "user-test-$uuid",
                "aud": ["project-test-1"],
                "https://stytch.com/session": {"id": "session-$hex"},
            },
            {
                "refresh": OPAQUE,
                "machine": {"sub": "m2m-client-1", "https://stytch.com/session": ..., "scope": "phone"},
                "other-tenant": {"iss": "stytch.com/project-test-2", "aud": ["project-test-2"]},
            },
            {"provider": "stytch", "project_id": "project-test-1", "jwks_url": "$base/v1/sessions/jwks/project-test-1"},
            jwks="/v1/sessions/jwks/project-test-1",
            discovery=None,
        ),
        "stytch-b2b": Provider(
            "Stytch for businesses, session JWTs",
            {
                "iss": "stytch.com/project-test-1",
                "sub": "member-test-$uuid",
                "aud": ["project-test-1"],
                "https://stytch.com/session": {"id": "session-$hex"},
            },
            {
                "refresh": OPAQUE,
                "machine": {"sub": "m2m-client-1", "https://stytch.com/session": ..., "scope": "phone"},
                "other-tenant": {"iss": "stytch.com/project-test-2", "aud": ["project-test-2"]},
            },
            {
                "provider": "stytch-b2b",
                "project_id": "project-test-1",
                "jwks_url": "$base/v1/b2b/sessions/jwks/project-test-1",
            },
            jwks="/v1/b2b/sessions/jwks/project-test-1",
            discovery=None,
        ),
        "pingone": Provider(
            "PingOne",
            {"sub": "$uuid", "aud": [API], "client_id": "softphone", "sid": "$sid", "scope": "phone"},
            {
                "id": {"client_id": ..., "scope": ..., "aud": "softphone", **ID},
                "refresh": OPAQUE,
                "machine": {"sub": ..., "sid": ..., "client_id": "batch"},
                "other-client": {"aud": [OTHER_API], "client_id": "wiki"},
                "other-tenant": {"iss": f"$base/{OTHER_TENANT}/as"},
            },
            {"provider": "pingone", "issuer": "$issuer", "audiences": [API], "client_id": "softphone"},
            path=f"/{TENANT}/as",
            jwks=f"/{TENANT}/as/jwks",
            typ=None,
        ),
    }
)

"""The settings of a single issuer, as environment variables name them."""

from types import MappingProxyType

ISSUER_FIELDS = MappingProxyType(
    {
        "issuer": "issuer",
        "audience": "audiences",
        "jwks_url": "jwks_url",
        "discovery_url": "discovery_url",
        "issuer_ca_file": "ca_file",
        "issuer_allow_http": "allow_http",
        "issuer_use_proxy": "use_proxy",
        "issuer_header": "header",
        "issuer_signer": "signer",
        "issuer_pem": "pem",
        "issuer_secret": "secret_env",
        "algorithms": "algorithms",
        "subject_claim": "subject_claim",
        "scope_claim": "scope_claim",
        "audience_claims": "audience_claims",
        "required_claims": "required_claims",
        "token_kind": "token_kind",
        "allowed_foreign_claims": "allowed_foreign_claims",
        "tenants": "tenants",
        "takes_tokens_without_iss": "takes_tokens_without_iss",
        "subject_type": "subject_type",
        "secret_encoding": "secret_encoding",
        "max_token_bytes": "max_token_bytes",
        "required_scopes": "required_scopes",
        "token_types": "token_types",
        "leeway_seconds": "leeway_seconds",
        "max_token_age_seconds": "max_token_age_seconds",
        "logout_audience": "logout_audiences",
    }
)
"""Settings of a single issuer, and their names in an issuer of dialtone.toml."""

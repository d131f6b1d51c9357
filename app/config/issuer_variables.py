"""The settings of a single issuer, as environment variables name them."""

from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, field_validator

from app.config.providers import VALUES
from app.config.text_cleaning import words

ProviderValue = str | tuple[str, ...] | None
"""One value, or several that are separated by commas or spaces."""

VALUE_VARIABLES = frozenset(f"provider_{name}" for name in VALUES)
"""The settings that hold the values of a preset."""

LIST_VARIABLES = frozenset(
    {"audience", "audience_claims", "logout_audience", "algorithms", "token_types", "required_scopes", "tenants"}
    | {"allowed_foreign_claims", "ops_scopes"}
)
"""The other settings of several values."""


class ProviderVariables(BaseModel):
    """The provider of a single issuer, the values that its preset needs (`app.config.providers`), and the sign-in."""

    ops_client_id: str | None = None
    ops_scopes: frozenset[str] | None = None
    provider: str | None = None
    provider_domain: ProviderValue = None
    provider_url: ProviderValue = None
    provider_tenant_id: ProviderValue = None
    provider_user_flow: ProviderValue = None
    provider_authorization_server: ProviderValue = None
    provider_user_pool_id: ProviderValue = None
    provider_client_id: ProviderValue = None
    provider_hosted_domain: ProviderValue = None
    provider_project_id: ProviderValue = None
    provider_environment_id: ProviderValue = None
    provider_organization_id: ProviderValue = None
    provider_origin: ProviderValue = None
    provider_realm: ProviderValue = None
    provider_application: ProviderValue = None
    provider_namespace: ProviderValue = None
    provider_service_account: ProviderValue = None
    provider_repository: ProviderValue = None
    provider_project_path: ProviderValue = None
    provider_ref: ProviderValue = None

    @field_validator(*sorted(VALUE_VARIABLES), mode="before")
    @classmethod
    def _split_values(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = words(value)
        return found[0] if len(found) == 1 else found


ISSUER_FIELDS = MappingProxyType(
    {f"provider_{name}": name for name in sorted(VALUES)}
    | {
        "provider": "provider",
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
        "previous_issuer_secret": "previous_secret_env",
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
        "ops_client_id": "ops_client_id",
        "ops_scopes": "ops_scopes",
    }
)
"""Settings of a single issuer, and their names in an issuer of dialtone.toml."""

"""Replaces `provider` in an issuer's table by the settings of its preset, completed with the values in the table."""

import difflib
import re
from collections.abc import Iterator, Mapping
from string import Template
from types import MappingProxyType
from typing import Any

from pydantic import Field, model_validator

from app.config import provider_values
from app.config.presets.applications import APPLICATIONS
from app.config.presets.hosted import HOSTED
from app.config.presets.preset import Preset
from app.config.presets.proxies import PROXIES
from app.config.presets.self_hosted import SELF_HOSTED
from app.config.presets.workloads import WORKLOADS
from app.config.provider_values import Values
from app.config.tables import FieldError, Table

PRESETS: Mapping[str, Preset] = MappingProxyType(HOSTED | SELF_HOSTED | PROXIES | WORKLOADS | APPLICATIONS)

_ENCRYPTED = (
    "Auth.js encrypts its session tokens, so a key cannot verify them; sign a token of your own in your backend"
)
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "okta-org": "access tokens of Okta's org authorization server are not meant for an API; use a custom "
        'authorization server with provider = "okta"',
        "auth.js": _ENCRYPTED,
        "authjs": _ENCRYPTED,
        "next-auth": _ENCRYPTED,
    }
)
"""Providers whose tokens cannot be verified with a key, with an alternative for each."""

_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "aad": "entra",
        "azure ad": "entra",
        "ory": "hydra",
        "ping": "pingone",
        "azure": "entra",
        "azuread": "entra",
        "azure-ad": "entra",
        "microsoft": "entra",
        "aws": "cognito",
    }
)
"""Other names of a provider, by which a preset is searched."""

_KEY_SOURCES = ("jwks_url", "discovery_url", "pem", "pem_file", "secret_env", "secret_file")
_LISTS = ("audiences", "logout_audiences", "one_of")
"""Settings that are a list of values."""

_GUIDS = {
    "audiences": "must be the application (client) ID of the API, which is the audience of these tokens",
    "tenants": 'must be the IDs of directories (GUIDs), which tokens contain, or "any"',
}
"""Settings of Entra ID whose values are GUIDs, and the error for others."""

_NAME = re.compile(r"\$([a-z_]+)")


class ProviderTable(Table):
    """The part of an issuer's table that names its provider, and the values that complete the preset."""

    provider: str | None = Field(
        None,
        description="Use the settings for this identity provider. They need the values that docs/identity-providers.md "
        "lists. Settings in the same table override them.",
        json_schema_extra={"enum": [*sorted(PRESETS)]},
    )
    domain: str | None = Field(None, description="The host of the tenant at the provider, such as tenant.eu.auth0.com.")
    url: str | None = Field(None, description="The URL of the provider, such as https://id.example.com.")
    tenant_id: str | None = Field(None, description="Entra: the directory (tenant) ID.")
    user_flow: str | None = Field(None, description="Azure AD B2C: the user flow or custom policy.")
    authorization_server: str | None = Field(None, description="Okta: the ID of a custom authorization server.")
    user_pool_id: str | None = Field(None, description="Cognito: the user pool ID.")
    client_id: str | tuple[str, ...] | None = Field(None, description="The client IDs whose tokens are accepted.")
    hosted_domain: str | tuple[str, ...] | None = Field(None, description="Google: the domains of the organization.")
    project_id: str | None = Field(None, description="Firebase, Supabase, Descope, Stytch, Zitadel: the project ID.")
    environment_id: str | None = Field(None, description="PingOne: the environment ID.")
    organization_id: str | tuple[str, ...] | None = Field(None, description="WorkOS: the organizations.")
    origin: str | tuple[str, ...] | None = Field(None, description="Clerk: the origins of your pages.")
    realm: str | None = Field(None, description="Keycloak: the realm.")
    application: str | None = Field(None, description="authentik: the slug of the application.")
    namespace: str | tuple[str, ...] | None = Field(None, description="Kubernetes: the namespaces.")
    service_account: str | tuple[str, ...] | None = Field(None, description="Kubernetes: the service accounts.")
    repository: str | tuple[str, ...] | None = Field(None, description="GitHub: the repositories, as OWNER/REPOSITORY.")
    project_path: str | tuple[str, ...] | None = Field(None, description="GitLab: the projects, as GROUP/PROJECT.")
    ref: str | tuple[str, ...] | None = Field(None, description="GitHub: refs/heads/BRANCH. GitLab: the branch.")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        cls.check_names(data)  # a misspelt name is the reason why another value is missing
        return expand(data) if isinstance(data, Mapping) else data


VALUES = frozenset(ProviderTable.model_fields) - {"provider"}
"""The names of all values that presets use."""


def values_behind(table: ProviderTable) -> dict[str, tuple[str, ...]]:
    """The values in the table from which its preset takes a setting, by setting: `domain` for `issuer`."""
    if table.provider is None:
        return {}
    named = {
        setting: tuple(dict.fromkeys(map(provider_values.given_name, _names(template))))
        for setting, template in PRESETS[table.provider].settings.items()
        if setting != "required_claims"
    }
    return {
        setting: names
        for setting, names in named.items()
        if names and all(getattr(table, name) is not None for name in names)
    }


def expand(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the settings of its provider. Raises FieldError for a missing, unused or invalid value."""
    given = {name: value for name, value in table.items() if name in VALUES and value is not None}
    own = {name: value for name, value in table.items() if name not in VALUES}
    if own.get("provider") is None:
        for name in given:
            raise FieldError(name, "has no effect without provider; remove it, or set provider")
        return own
    provider = own["provider"]
    preset = _preset(provider)
    templates = _not_overridden(preset.settings, own)
    named = {provider_values.given_name(name) for name in _names(templates)}
    for name in given:
        if name not in named:
            raise FieldError(name, _why_unused(name, provider, preset, own))
    values = {name: provider_values.read(name, value) for name, value in {**preset.defaults, **given}.items()}
    for name in sorted(named - values.keys() - preset.optional):
        raise FieldError(name, f'is required with provider = "{provider}"')
    _check_required(provider, preset, own)
    if preset.has_guid_audience:
        own |= {name: _guids(own[name], name) for name in _GUIDS if name in own}
    filled = {
        name: _filled(name, template, values)
        for name, template in _without_absent(templates, preset.optional - values.keys()).items()
    }
    if isinstance(own.get("required_claims"), Mapping):
        own["required_claims"] = {**filled.get("required_claims", {}), **own["required_claims"]}
    normalized = {name: values[name][0] if len(values[name]) == 1 else values[name] for name in given}
    return {**normalized, **filled, **own}


def _preset(provider: Any) -> Preset:
    if not isinstance(provider, str) or provider not in PRESETS:
        key = str(provider).lower()
        if key in UNSUPPORTED:
            raise FieldError("provider", UNSUPPORTED[key])
        near = [_OTHER_NAMES[key]] if key in _OTHER_NAMES else difflib.get_close_matches(key, PRESETS, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "."
        raise FieldError("provider", f"is unknown{hint} Known providers: {', '.join(sorted(PRESETS))}")
    return PRESETS[provider]


def _not_overridden(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset that the table does not replace. Conditions on claims are replaced one by one."""
    replaced = set(own) - {"required_claims"}
    if replaced & set(_KEY_SOURCES):
        replaced |= {*_KEY_SOURCES, "ca_file"}
    kept = {name: setting for name, setting in settings.items() if name not in replaced}
    own_claims = own.get("required_claims", {})
    if "required_claims" in kept and isinstance(own_claims, Mapping):
        kept["required_claims"] = {
            name: condition for name, condition in kept["required_claims"].items() if name not in own_claims
        }
    return kept


def _names(template: Any) -> Iterator[str]:
    """The names of values in a template."""
    if isinstance(template, str):
        yield from _NAME.findall(template)
    elif isinstance(template, Mapping | list):
        for part in template.values() if isinstance(template, Mapping) else template:
            yield from _names(part)


def _why_unused(name: str, provider: str, preset: Preset, own: Mapping[str, Any]) -> str:
    settings = [
        setting
        for setting, template in preset.settings.items()
        if setting in own and name in map(provider_values.given_name, _names(template))
    ]
    if settings:
        return f"has no effect, because {settings[0]} replaces it; remove one of the two"
    required = set(preset.requires) - set(preset.settings)
    taken = sorted({provider_values.given_name(known) for known in _names(preset.settings)} | required)
    listed = " and ".join(filter(None, (", ".join(taken[:-1]), taken[-1])))
    return f'has no effect with provider = "{provider}", which takes {listed}'


def _check_required(provider: str, preset: Preset, own: Mapping[str, Any]) -> None:
    for name in preset.requires:
        if name in _KEY_SOURCES:
            if not any(own.get(source) for source in _KEY_SOURCES):
                raise FieldError(name, f'is required with provider = "{provider}"; set {name} or another key source')
        elif not own.get(name) and name not in preset.settings:
            raise FieldError(name, f'is required with provider = "{provider}"')
    if "tenants" in own and "tenants" not in preset.requires and "issuer" not in own:
        raise FieldError("tenants", f'has no effect with provider = "{provider}"; use provider = "entra-multitenant"')


def _guids(values: Any, setting: str) -> Any:
    """The GUIDs of a setting as tokens contain them. Raises FieldError."""
    if not isinstance(values, list | tuple | frozenset):
        return values
    try:
        return [provider_values.guid(str(value)) for value in values]
    except ValueError:
        raise FieldError(setting, _GUIDS[setting]) from None


def _without_absent(templates: Mapping[str, Any], absent: frozenset[str]) -> dict[str, Any]:
    """The settings and conditions that contain no absent value."""
    kept = {}
    for name, template in templates.items():
        part = _without_absent(template, absent) if name == "required_claims" else template
        if absent.isdisjoint(map(provider_values.given_name, _names(part))):
            kept[name] = part
    return kept


def _filled(setting: str, template: Any, values: Values) -> Any:
    if isinstance(template, Mapping):
        return {name: _filled(name, part, values) for name, part in template.items()}
    if isinstance(template, list):
        return [_filled("", part, values) for part in template]
    if not isinstance(template, str):
        return template
    if setting in _LISTS:
        return list(values[template.removeprefix("$")])
    return Template(template).substitute({name: provider_values.as_text(name, values) for name in _names(template)})

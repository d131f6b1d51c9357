"""The settings in effect and their sources, for `dialtone config show`. The value of a secret is not shown."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from app.adapters.identity import load_balancer
from app.adapters.identity.key_sets import KeySetLocation
from app.config.file import IssuerTable
from app.config.issuer_variables import ISSUER_FIELDS
from app.config.providers import VALUES
from app.config.settings import Settings, variable_of
from app.vending.models import Platform

DEFAULT = "default"
_ISSUER_SETTINGS = {*ISSUER_FIELDS, "issuer_pem_file", "issuer_secret_file"}


class SettingInEffect(NamedTuple):
    """A setting with its value in effect: None if there is none."""

    name: str
    value: Any
    source: str
    """`default`, `environment`, the path of a file, or the preset."""


def settings_in_effect(settings: Settings) -> list[SettingInEffect]:
    """All settings but those of the issuers."""
    computed: dict[str, Any] = {
        "warm_pool_size": "auto",
        "tag_key": "(derived from TELNYX_API_KEY)",
        "at_device_limit": ", ".join(
            f"{platform} {settings.allowance.action_at_limit(platform)}" for platform in Platform
        ),
    }
    return [
        SettingInEffect(
            variable_of(name),
            computed[name] if value is None and name in computed else _displayed(value, settings.origin(name)),
            settings.origin(name),
        )
        for name in Settings.model_fields
        if name not in _ISSUER_SETTINGS
        for value in [getattr(settings, name)]
    ]


def issuers_in_effect(settings: Settings) -> list[list[SettingInEffect]]:
    """The settings of each issuer, including those of its preset."""
    tables = [table for table, _ in settings.identity().issuers]
    given = _given_in_file(settings.config) if settings.config is not None else [_given_in_variables(settings)]
    return [_issuer_in_effect(table, sources) for table, sources in zip(tables, given, strict=True)]


def _issuer_in_effect(table: IssuerTable, given: dict[str, str]) -> list[SettingInEffect]:
    preset = dict.fromkeys(table.model_fields_set, f"preset {table.provider}")
    sources = given if table.provider is None else preset | given
    computed = _computed(table)
    return [
        SettingInEffect(
            name,
            computed[name] if name in computed and name not in sources else _shown(name, getattr(table, name)),
            sources.get(name, DEFAULT),
        )
        for name in IssuerTable.model_fields
        if name not in VALUES or name in sources
    ]


def _shown(name: str, value: Any) -> Any:
    if name == "pem" and value is not None:
        return "(set)"
    if name in ("jwks_url", "discovery_url") and value is not None:
        address, mark, _ = value.partition("?")
        return f"{address}?(set)" if mark else value  # a query may hold a key
    return _plain(value)


def _computed(table: IssuerTable) -> dict[str, Any]:
    """Defaults that depend on other settings."""
    found = {
        "name": table.issuer,
        "algorithms": _plain(table.effective_algorithms),
        "token_types": _plain(table.effective_token_types),
        "logout_audiences": _plain(table.logout_audiences or table.audiences),
        "allowed_foreign_claims": _plain(table.allowed_id_token_claims),
    }
    is_fixed = table.is_symmetric or table.pem is not None or table.pem_file is not None
    if table.signer is not None:
        found["jwks_url"] = load_balancer.keys_url(table.signer)
    elif not is_fixed and table.jwks_url is None:
        found["discovery_url"] = KeySetLocation(table.issuer, table.effective_algorithms).discovery
    return found


def _given_in_variables(settings: Settings) -> dict[str, str]:
    """The source of each field of the single issuer that is not the default."""
    return {
        field: f"{variable_of(name)}, {origin}"
        for name, field in ISSUER_FIELDS.items()
        if (origin := settings.origin(name)) != DEFAULT
    }


def _given_in_file(path: str) -> list[dict[str, str]]:
    """The source of each setting in each issuer's table. The file is valid."""
    tables = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))["issuers"]
    return [dict.fromkeys(table, f"{path}, issuers[{number}]") for number, table in enumerate(tables)]


def _displayed(value: Any, origin: str) -> Any:
    """The value as JSON. A default is shown even if the setting is a secret."""
    return value.get_secret_value() if origin == DEFAULT and isinstance(value, SecretStr) else _plain(value)


def _plain(value: Any) -> Any:
    """The value as JSON: sets as sorted lists, tables as objects, secrets as `(set)`."""
    match value:
        case SecretStr():
            return "(set)"
        case frozenset():
            return sorted(value)
        case tuple():
            return list(value)
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True)
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case _:
            return value

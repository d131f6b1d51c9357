"""A preset: the settings of an issuer that one identity provider has in common for all its users."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOME_TEXT = {"glob": "?*"}
CLIENT = {"one_of": "$client_id"}
NOT_THE_CLIENT = {"not": {"one_of": "$client_id"}}
"""A condition on `sub`: in a token of an application without a user, it is often the client id."""
NO_ACTOR = {"not": {"glob": "*"}}
"""A condition on `/act/sub` (RFC 8693 section 4.1): an administrator who impersonates the user."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings with the names of values in them: `$domain` is the value `domain` of the issuer's table.

    If a text is only a name, such as `$client_id`, the setting is the list of values.
    """

    source: str
    """The provider's documentation of the facts in the settings."""
    settings: Mapping[str, Any]
    requires: tuple[str, ...] = ("audiences",)
    """Settings without a default that only the user knows."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Values that may be omitted."""
    optional: frozenset[str] = frozenset()
    """Values that may be omitted. A setting or condition that contains such a value is then omitted too."""
    has_guid_audience: bool = False

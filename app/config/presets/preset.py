"""A preset: the settings that all issuers of one identity provider share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOME_TEXT = {"glob": "?*"}
"""A condition that any text meets, except for empty text."""

CLIENT = {"one_of": "$client_id"}
"""A condition on the claim that names the client."""

NOT_THE_CLIENT = {"not": {"one_of": "$client_id"}}
"""A condition on `sub`. In a token of an application without a user, `sub` is often the client id."""

NO_ACTOR = {"not": {"glob": "*"}}
"""A condition on `/act/sub` (RFC 8693 section 4.1), which names an administrator that impersonates the user."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that contain names of values: `$domain` is replaced by the value `domain` of the issuer's table.

    If the text of a setting is only a name, such as `$client_id`, the setting becomes the list of values.
    """

    source: str
    """The provider's documentation of the facts in the settings."""
    settings: Mapping[str, Any]
    requires: tuple[str, ...] = ("audiences",)
    """Settings that have no default, so that the operator must set them."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Values that may be omitted."""
    optional: frozenset[str] = frozenset()
    """Values that may be omitted. A setting or condition that contains such a value is then omitted too."""
    has_guid_audience: bool = False
    """True if audiences are application ids, which are GUIDs."""

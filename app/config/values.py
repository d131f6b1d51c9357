"""Values as container environments pass them: with line ends, or in quotes."""

from collections.abc import Collection
from typing import Any


def cleaned(values: dict[str, Any], may_have_quotes: Collection[str]) -> dict[str, Any]:
    """The values without white space around them, such as the line end of a Kubernetes secret.

    Raises ValueError for quotes around a value, which `docker --env-file` keeps. `may_have_quotes` names the generated
    secrets, of which quotes may be a part.
    """
    found = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
    for name, value in found.items():
        is_quoted = isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        if is_quoted and name not in may_have_quotes:
            variable = name if name.isupper() else f"DIALTONE_{name.upper()}"
            raise ValueError(f"{variable} has quotes around its value, which are part of it here; remove them")
    return found

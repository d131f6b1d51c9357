"""The place and the message of a fault in the configuration, from the errors of pydantic."""

from pydantic import ValidationError

from app.config.tables import FieldError

_CONTAINERS = {
    "frozen_set_type": 'must be a list, such as ["a", "b"]',
    "tuple_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table",
    "model_type": "must be a table",
}
"""pydantic's messages name types of Python."""


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The place (`issuers[0].algorithms`) and the message of the first fault, without the value."""
    fault = error.errors(include_input=False, include_url=False)[0]
    loc = [part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        place = f"{place}.{cause.field}".lstrip(".")
    place = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in place)  # a key is any text
    if place in ("issuers", "policy.rules") and fault["type"] == "tuple_type":
        return place, f"must be a list of tables; write [[{place}]] with two pairs of brackets"
    if fault["type"] == "missing":
        return place, "is required"
    return place, _CONTAINERS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")

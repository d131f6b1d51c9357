"""The event reference of the site describes each type of event, and its examples have exactly the described members."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from app.vending.events.models import EventType

PAGE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "site" / "event_reference.py"))
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "string or null": (str, type(None)),
    "integer": (int,),
}


@pytest.mark.parametrize("event_type", EventType)
def test_type_has_a_meaning_and_an_example(event_type: EventType) -> None:
    text = "\n".join(PAGE["lines"]())

    assert f"\n## {event_type.value}\n\n{PAGE['meanings']()[event_type]}\n" in text
    assert f'"type": "{event_type.value}"' in text


@pytest.mark.parametrize("event_type", EventType)
def test_example_has_exactly_the_described_members(event_type: EventType) -> None:
    example = PAGE["examples"]()[event_type]
    data: dict[str, Any] = PAGE["body"](example.event)["data"]
    described = {member.name: member for member in PAGE["members"]("CommonData") + PAGE["members"](example.data)}

    assert set(data) == set(described)
    for name, value in data.items():
        assert isinstance(value, JSON_TYPES[described[name].json_type]), name
        assert described[name].description.endswith("."), name

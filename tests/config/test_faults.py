"""Messages of faults in the configuration say what a value must be, in words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.config.faults import FORMATS
from app.config.file import ConfigFile
from app.config.settings import Settings, SettingsError
from tests.support.configuration import ISSUER, load_file, load_variables

RULE = '[[policy.rules]]\nname = "staff"\n'


def patterns_of(schema: dict[str, Any]) -> set[str]:
    return {json.loads(found) for found in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(schema))}


@pytest.mark.parametrize("model", [ConfigFile, Settings])
def test_every_pattern_has_a_requirement_in_words(model: type[ConfigFile | Settings]) -> None:
    assert patterns_of(model.model_json_schema()) <= FORMATS.keys()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (RULE + 'rtc.caller_id_number = "024850111"', "must be a number in E.164, such as +3224850111"),
        (RULE + 'connection_id = "main"', "must be the number of a connection, such as 1293384261075731499"),
        ('[[policy.rules]]\nname = "all staff"', "must have 1 to 64 letters, digits"),
    ],
)
def test_value_in_a_wrong_format_is_explained(
    lines: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_file(monkeypatch, tmp_path, ISSUER + lines)


def test_variable_in_a_wrong_format_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="DIALTONE_RTC_HOST: must be a WebSocket URL"):
        load_variables(monkeypatch, DIALTONE_RTC_HOST="rtc.telnyx.com")

"""Files that the release checks read: a missing or invalid file is a finding that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from release.files import read_json, read_text, read_toml
from release.findings import CheckFailed


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        read_text(tmp_path, "CHANGELOG.md")

    assert str(caught.value.finding) == (
        "CHANGELOG.md: cannot be read: No such file or directory; correct it, or restore it with Git"
    )


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_bytes(b"\xff")

    with pytest.raises(CheckFailed, match="not UTF-8"):
        read_text(tmp_path, "one.md")


@pytest.mark.parametrize(("read", "form"), [(read_json, "JSON"), (read_toml, "TOML")])
@pytest.mark.parametrize("text", ["{", "<<<<<<< HEAD\n"])
def test_invalid_document_is_named(tmp_path: Path, read: Callable[[Path, str], Any], form: str, text: str) -> None:
    (tmp_path / "one").write_text(text)

    with pytest.raises(CheckFailed, match=f"is not valid {form}"):
        read(tmp_path, "one")


@pytest.mark.parametrize("text", ["{}", '{"info": {}}', '{"info": []}', '{"info": null}', "[]"])
def test_document_without_the_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "openapi.json").write_text(text)

    with pytest.raises(CheckFailed) as caught:
        read_json(tmp_path, "openapi.json", "info", "version")

    assert caught.value.finding.path == "openapi.json"
    assert caught.value.finding.problem in ("has no 'info'", "has no 'version'")

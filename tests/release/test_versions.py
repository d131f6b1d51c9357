"""Release checks of versions: each file that disagrees is named with the remedy."""

import json
from pathlib import Path

import pytest

from release.findings import CheckFailed
from release.versions import check_versions, npm_version
from tests.release.trees import write_project


def test_files_that_agree_have_no_finding(tmp_path: Path) -> None:
    assert list(check_versions(write_project(tmp_path), "v1.2.3")) == []


def test_development_version_is_a_finding_of_releases_only(tmp_path: Path) -> None:
    (finding,) = check_versions(write_project(tmp_path, version="1.2.3.dev0"))

    assert finding.release_only
    assert str(finding) == "app/__init__.py: 1.2.3.dev0 is a development version; set __version__ to 1.2.3"


@pytest.mark.parametrize("name", ["openapi.json", "docs/openapi/user.json", "docs/openapi/operators.json"])
def test_openapi_document_with_another_version_is_named(tmp_path: Path, name: str) -> None:
    (write_project(tmp_path) / name).write_text(json.dumps({"info": {"version": "1.2.2"}}))

    (finding,) = check_versions(tmp_path)

    assert not finding.release_only
    assert str(finding) == f"{name}: the version is 1.2.2, not 1.2.3; run `make openapi`"


def test_client_with_another_version_is_a_finding_of_releases_only(tmp_path: Path) -> None:
    (finding,) = check_versions(write_project(tmp_path, client="1.2.2"))

    assert finding.release_only
    assert str(finding).startswith("clients/js/package.json: the version is 1.2.2, not 1.2.3; run `npm version 1.2.3 ")


def test_client_lock_with_another_version_is_named(tmp_path: Path) -> None:
    lock = write_project(tmp_path) / "clients/js/package-lock.json"
    lock.write_text(json.dumps({"version": "1.2.3", "packages": {"": {"version": "1.2.2"}}}))

    assert [finding.path for finding in check_versions(tmp_path)] == ["clients/js/package-lock.json"]


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1.2.3-1", "client-v1.2.3"])
def test_other_tag_is_a_finding(tmp_path: Path, tag: str) -> None:
    (finding,) = check_versions(write_project(tmp_path), tag)

    assert str(finding) == f"app/__init__.py: the version is 1.2.3, but the tag is {tag}; push the tag v1.2.3"


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3.post1", "1.2.3-rc1", "unknown", "1.2.3+local"])
def test_version_of_another_form_stops_the_check(tmp_path: Path, version: str) -> None:
    write_project(tmp_path, version=version)

    with pytest.raises(CheckFailed, match="no version such as"):
        list(check_versions(tmp_path))


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3-rc.1"), ("1.2.3a2", "1.2.3-alpha.2"), ("1.2.3.dev0", "1.2.3")],
)
def test_npm_writes_the_version_as_semantic_version(version: str, expected: str) -> None:
    assert npm_version(version) == expected

"""Release checks of the changelog: empty headings, entries that are not released, versions and dates."""

from pathlib import Path

import pytest

from release.versions import check_changelog
from tests.release.trees import CHANGELOG, write_project


def findings(root: Path, changelog: str, version: str = "1.2.3") -> list[str]:
    return [str(finding) for finding in check_changelog(write_project(root, version=version, changelog=changelog))]


def test_released_changelog_has_no_finding(tmp_path: Path) -> None:
    assert findings(tmp_path, CHANGELOG) == []


def test_unreleased_section_may_be_absent(tmp_path: Path) -> None:
    assert findings(tmp_path, CHANGELOG.replace("## [Unreleased]\n", "")) == []


def test_unreleased_entries_are_a_finding(tmp_path: Path) -> None:
    changelog = CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- An entry.\n")

    assert findings(tmp_path, changelog) == [
        "CHANGELOG.md: [Unreleased] has entries; move them to a section [1.2.3] with a date"
    ]


def test_development_version_fails_only_a_release(tmp_path: Path) -> None:
    changelog = CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- An entry.\n")
    found = list(check_changelog(write_project(tmp_path, version="1.3.0.dev0", changelog=changelog)))

    assert [finding.problem for finding in found] == [
        "[Unreleased] has entries",
        "the newest version is 1.2.3, not 1.3.0.dev0",
    ]
    assert all(finding.release_only for finding in found)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("- A setting.\n", "", "'Added' in [1.2.3] is empty"),
        ("- A fix.\n", "", "[1.2.2] is empty"),
        ("[Unreleased]\n", "[Unreleased]\n\n### Fixed\n", "'Fixed' in [Unreleased] is empty"),
        ("### Added\n", "### Fixed\n\n### Added\n", "'Fixed' in [1.2.3] is empty"),
    ],
)
def test_empty_heading_is_named(tmp_path: Path, before: str, after: str, problem: str) -> None:
    assert any(problem in finding for finding in findings(tmp_path, CHANGELOG.replace(before, after)))


def test_older_newest_version_is_a_finding(tmp_path: Path) -> None:
    assert findings(tmp_path, CHANGELOG, version="1.2.4") == [
        "CHANGELOG.md: the newest version is 1.2.3, not 1.2.4; add a section [1.2.4]"
    ]


def test_changelog_without_versions_is_a_finding(tmp_path: Path) -> None:
    assert findings(tmp_path, "# Changelog\n") == [
        "CHANGELOG.md: the newest version is none, not 1.2.3; add a section [1.2.3]"
    ]


@pytest.mark.parametrize("date", ["", " - unreleased", " - 26.11.2026", " - 2026-13-01", " - 20261126"])
def test_version_without_a_date_is_a_finding(tmp_path: Path, date: str) -> None:
    (finding,) = findings(tmp_path, CHANGELOG.replace(" - 2026-11-26", date))

    assert finding.endswith("; write ## [1.2.3] - YYYY-MM-DD")

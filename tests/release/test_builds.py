"""Builds of a release: the wheel is reproducible, and packages contain no other files."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from release.builds import (
    build_client,
    build_python,
    check_committed,
    client_findings,
    commit_time,
    differences,
    export_twice,
    run,
    wheel_findings,
)
from release.findings import CheckFailed

ROOT = Path(__file__).parents[2]
CLIENT_FILES = ("package.json", "README.md", "LICENSE", "dist/index.js", "react/package.json")


def wheel(folder: Path, *names: str) -> Path:
    path = folder / "one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("app/__init__.py", "migrations/env.py", "one-1.0.dist-info/METADATA", *names):
            archive.writestr(name, "")
    return path


def tarball(folder: Path, *names: str) -> Path:
    path = folder / "client-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"package/{name}"), io.BytesIO())
    return path


def repository(folder: Path, **files: str) -> Path:
    """A clone with one commit."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "First"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_wheel_and_sdist_are_the_same_in_two_folders_times_and_zones(tmp_path: Path) -> None:
    files, findings = build_python(export_twice(ROOT, tmp_path / "work"), commit_time(ROOT))

    assert [file.suffix for file in files] == [".whl", ".gz"]
    assert [str(finding) for finding in findings] == []


def test_builds_that_differ_are_named(tmp_path: Path) -> None:
    for folder, text in (("first", "1"), ("second", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.whl").write_text(text)
    (tmp_path / "first" / "two.whl").write_text("")

    found = differences("pyproject.toml", *[sorted((tmp_path / name).iterdir()) for name in ("first", "second")])

    assert [finding.problem for finding in found] == ["two builds of one.whl differ", "two builds of two.whl differ"]


def test_wheel_of_app_and_migrations_has_no_finding(tmp_path: Path) -> None:
    assert list(wheel_findings(wheel(tmp_path, "app/api/testing.py"))) == []


@pytest.mark.parametrize(
    "name",
    ["tests/test_a.py", "app/tests/a.py", "app/test_a.py", "app/conftest.py", "setup.py", "release/sbom.py", ".env"],
)
def test_other_file_in_the_wheel_is_named(tmp_path: Path, name: str) -> None:
    (finding,) = wheel_findings(wheel(tmp_path, name))

    assert str(finding) == f"pyproject.toml: one-1.0-py3-none-any.whl contains {name}; exclude it from the wheel"


def test_wheel_without_migrations_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "one.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app/__init__.py", "")

    assert [finding.problem for finding in wheel_findings(path)] == ["one.whl lacks migrations/"]


def test_client_package_of_dist_and_readme_has_no_finding(tmp_path: Path) -> None:
    assert list(client_findings(tarball(tmp_path, *CLIENT_FILES))) == []


@pytest.mark.parametrize(
    "name", ["src/index.ts", "test/a.mjs", "dist/test/a.js", "dist/index.test.js", ".npmrc", "tsconfig.json"]
)
def test_other_file_in_the_client_package_is_named(tmp_path: Path, name: str) -> None:
    (finding,) = client_findings(tarball(tmp_path, *CLIENT_FILES, name))

    assert finding.problem == f"client-1.0.tgz contains {name}"


@pytest.mark.parametrize("name", ["package.json", "README.md", "LICENSE", "dist/index.js"])
def test_missing_file_of_the_client_package_is_named(tmp_path: Path, name: str) -> None:
    (finding,) = client_findings(tarball(tmp_path, *[file for file in CLIENT_FILES if file != name]))

    assert finding.problem == f"client-1.0.tgz lacks {name}"


def test_client_without_installed_tools_stops_the_check(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        build_client([], tmp_path / "node_modules")

    assert str(caught.value.finding) == "clients/js/node_modules: does not exist; run `make client`"


def test_uncommitted_change_is_a_finding_of_releases_only(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone", one="1", two="2")
    assert list(check_committed(root)) == []

    (root / "one").write_text("changed")
    (root / "three").write_text("new")
    (finding,) = check_committed(root)

    assert finding.release_only
    assert str(finding) == "one and 1 more: changed, but the artifacts contain HEAD; commit the change"


def test_export_contains_the_commit_and_not_the_changes(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone", one="1")
    (root / "one").write_text("changed")
    (root / "secret").write_text("new")

    first, second = export_twice(root, tmp_path / "work")

    assert [path.name for path in first.iterdir()] == ["one"]
    assert (first / "one").read_text() == (second / "one").read_text() == "1"
    assert (first / "one").stat().st_mtime != (second / "one").stat().st_mtime


def test_folder_that_is_no_clone_stops_the_check(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        commit_time(tmp_path)

    assert str(caught.value.finding).startswith("git log: failed: fatal: not a git repository")


def test_failed_command_reports_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        run(["sh", "-c", "echo first >&2; echo last >&2; exit 3"], tmp_path, "fix it")

    assert str(caught.value.finding) == "sh -c: failed: last; fix it"


def test_command_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        run(["no-such-program"], tmp_path, "fix it")

    assert str(caught.value.finding) == "no-such-program: is not installed; install no-such-program"

"""The command of `make release-check`: what it prints, its exit status, and what it leaves in dist/."""

import subprocess
from pathlib import Path

import pytest

from release.__main__ import Report, main
from release.findings import CheckFailed, Finding
from tests.release.trees import write_project

RELEASE_ONLY = Finding("one.md", "is not ready", "finish it", release_only=True)


def test_release_fails_with_a_line_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(rehearsal=False)
    report.check("files", lambda: [RELEASE_ONLY, Finding("two.md", "is wrong", "correct it")])

    assert report.failed == 2
    assert capsys.readouterr().out == (
        "FAIL  files: one.md: is not ready; finish it\nFAIL  files: two.md: is wrong; correct it\n"
    )


def test_rehearsal_notes_what_only_a_release_forbids(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(rehearsal=True)
    report.check("files", lambda: [RELEASE_ONLY])

    assert report.failed == 0
    assert capsys.readouterr().out == "note  files: one.md: is not ready; finish it\n"


def test_check_that_cannot_continue_fails_a_rehearsal(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> list[Finding]:
        raise CheckFailed("npm pack", "failed: no disk", "free some space")

    report = Report(rehearsal=True)
    report.check("client", stop)

    assert report.failed == 1
    assert capsys.readouterr().out == "FAIL  client: npm pack: failed: no disk; free some space\n"


def test_error_of_the_file_system_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> list[Finding]:
        raise OSError(28, "No space left on device", "dialtone.whl")

    report = Report(rehearsal=True)
    report.check("wheel", fill)

    assert capsys.readouterr().out == (
        "FAIL  wheel: dialtone.whl: No space left on device; correct it, and run the check again\n"
    )


def test_failed_check_deletes_the_artifacts_of_an_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_project(tmp_path / "clone", version="1.2.4.dev0")
    (root / "dist").mkdir()
    (root / "dist" / "old.whl").write_text("")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)

    assert main(["--root", str(root)]) == 1
    assert not (root / "dist").exists()
    assert "FAIL  versions: app/__init__.py: 1.2.4.dev0 is a development version" in capsys.readouterr().out

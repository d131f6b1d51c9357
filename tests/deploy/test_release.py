"""The step of the release workflow that resolves the base image. Docker is a script that prints a given text."""

import os
import subprocess
from pathlib import Path

import yaml

from tests.support.replicas import ROOT

WORKFLOW = ROOT / ".github/workflows/release.yml"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def resolve_base_image(folder: Path, printed: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the step, and return it with the lines of its output."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["image"]["steps"]
    (script,) = [step["run"] for step in steps if step.get("id") == "base"]
    docker = folder / "docker"
    docker.write_text(f"#!/bin/sh\necho '{printed}'\n")
    docker.chmod(0o755)
    output = folder / "output"
    output.touch()
    variables = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    environment = os.environ | variables | {"PATH": f"{folder}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-e", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return ended, output.read_text().splitlines()


def test_base_image_is_the_tag_of_the_dockerfile_with_its_current_digest(tmp_path: Path) -> None:
    ended, lines = resolve_base_image(tmp_path, f'"{DIGEST}"')

    assert ended.returncode == 0, ended.stderr
    assert lines[:2] == ["name=python:3.11-slim-bookworm", f"digest={DIGEST}"]
    assert (tmp_path / "summary").read_text() == f"Base image: `python:3.11-slim-bookworm@{DIGEST}`\n"


def test_release_fails_without_a_digest(tmp_path: Path) -> None:
    ended, lines = resolve_base_image(tmp_path, "Name: python")

    assert ended.returncode == 1
    assert "The digest of python:3.11-slim-bookworm is unknown" in ended.stderr
    assert lines == []


def test_image_is_built_from_the_digest_and_labelled_with_it() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["image"]["steps"]
    (build,) = [step["with"] for step in steps if step.get("uses", "").startswith("docker/build-push-action@")]

    assert "BASE_IMAGE=${{ steps.base.outputs.name }}@${{ steps.base.outputs.digest }}" in build["build-args"]
    assert "org.opencontainers.image.base.digest=${{ steps.base.outputs.digest }}" in build["labels"]
    assert "target" not in build, "the default target is the service"

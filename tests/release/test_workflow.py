"""The release workflow: order of its jobs, their permissions, platforms and signatures."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    return found


def step(job: str, name: str) -> dict[str, Any]:
    (found,) = [step for step in jobs()[job]["steps"] if step["name"] == name]
    return dict(found)


def test_packages_are_those_of_the_release_check_with_the_tag() -> None:
    check = step("package", "Check the release and build it")

    assert check["run"] == "make release-check"
    assert check["env"] == {"TAG": "${{ github.ref_name }}"}


def test_only_jobs_that_sign_or_publish_have_an_identity() -> None:
    with_identity = {name for name, job in jobs().items() if "id-token" in job["permissions"]}

    assert with_identity == {"sign", "client", "release"}


def test_each_job_waits_for_the_one_before() -> None:
    assert {name: job.get("needs") for name, job in jobs().items()} == {
        "tag": None,
        "checks": "tag",
        "package": "checks",
        "image": "package",
        "sign": "image",
        "client": ["package", "sign"],
        "release": ["package", "sign", "client"],
    }


def test_image_has_two_platforms_with_sbom_and_provenance() -> None:
    build = step("image", "Build and push without a tag")["with"]

    assert build["platforms"] == "linux/amd64,linux/arm64"
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")


def test_signature_is_of_the_digest() -> None:
    sign = step("sign", "Sign the digest")

    assert sign["env"]["IMAGE"] == "${{ needs.image.outputs.image }}@${{ needs.image.outputs.digest }}"


def test_version_is_tagged_after_the_image_was_started_and_signed() -> None:
    image, sign = ([step["name"] for step in jobs()[job]["steps"]] for job in ("image", "sign"))

    assert "push-by-digest=true" in step("image", "Build and push without a tag")["with"]["outputs"]
    assert ":" not in step("image", "Build and push without a tag")["with"]["tags"]
    assert image.index("Build and push without a tag") < image.index("Start the image on both platforms")
    assert sign.index("Sign the digest") < sign.index("Tag the digest")


def test_release_attests_the_files_that_the_check_wrote() -> None:
    assert step("release", "Attest the provenance of each file")["with"] == {"subject-checksums": "dist/SHA256SUMS"}
    assert step("release", "Attest the SBOM of the wheel")["with"]["subject-path"] == "dist/*.whl"


def test_npm_package_has_the_checked_files_and_provenance() -> None:
    names = [step["name"] for step in jobs()["client"]["steps"]]
    assert names.index("Compare the files with their checksums") < names.index("Unpack the package")
    assert "npm publish --ignore-scripts --provenance" in step("client", "Publish")["run"]


def test_jobs_with_an_identity_run_no_code_of_the_repository_or_of_its_dependencies() -> None:
    for job in (job for job in jobs().values() if "id-token" in job["permissions"]):
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert not any(action.startswith("actions/checkout@") for action in used)
        scripts = "\n".join(step.get("run", "") for step in job["steps"])
        assert not any(word in scripts for word in ("npm ci", "npm install", "npm run", "make ", "pip install"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with all branches, as in the job. `main` has the tag v1 and a commit after it; `topic` has v2."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "--quiet", "--initial-branch", "main")
    for commands in (("commit", "tag v1"), ("commit",), ("checkout --quiet -b topic", "commit", "tag v2")):
        for command in commands:
            more = ("--quiet", "--allow-empty", "--message", "Change") if command == "commit" else ()
            git(origin, *command.split(), *more)
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    return clone


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


@pytest.mark.parametrize(("tag", "exit_code"), [("v1", 0), ("v2", 1)])
def test_only_a_tag_on_main_is_released(clone: Path, tag: str, exit_code: int) -> None:
    git(clone, "checkout", "--quiet", "--detach", tag)
    script = step("tag", "Check that the tag is on main")["run"]

    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=clone,
        env={**os.environ, "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == exit_code
    assert (f"{tag} is not on main." in done.stderr) == bool(exit_code)


def test_check_of_the_tag_sees_all_branches() -> None:
    assert step("tag", "Check out")["with"]["fetch-depth"] == 0


@pytest.mark.parametrize(
    ("inspected", "outcome"),
    [
        ("echo DIGEST", "exists already"),
        ("echo 'ERROR: registry/image:1.2.3: not found' >&2; exit 1", "created"),
        ("echo 'ERROR: unexpected status: 503' >&2; exit 1", "failed"),
    ],
)
def test_version_is_tagged_only_if_the_registry_says_that_it_does_not_exist(
    tmp_path: Path, inspected: str, outcome: str
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *create*) touch {tmp_path}/created; exit 0 ;; esac\n'
        f"if [ -e {tmp_path}/created ]; then echo DIGEST; exit 0; fi\n"
        f"{inspected}\n"
    )
    docker.chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", step("sign", "Tag the digest")["run"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "IMAGE": "image", "DIGEST": "DIGEST", "VERSION": "1.2.3"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode == 0) == (outcome != "failed")
    assert (tmp_path / "created").exists() == (outcome == "created")
    assert ("exists already" in done.stdout) == (outcome == "exists already")

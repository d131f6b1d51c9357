"""The release workflow: order of its jobs, their permissions, platforms and signatures."""

from pathlib import Path
from typing import Any

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
        "checks": None,
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

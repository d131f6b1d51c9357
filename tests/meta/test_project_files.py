"""Files about the project agree with each other: licence, Python versions, workflows."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ["examples/plain", "examples/vite-react", "examples/nextjs"]
PACKAGES = ["clients/js", "clients/js/bundlers", "benchmarks", "tests/contract", *EXAMPLES]
CLIENT = {"resolved": "file:../../clients/js"}
"""How the lock of an example names dialtone-client, which npm copies from this repository."""
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LICENSE = "Apache-2.0"
PYTHON = "Programming Language :: Python :: "


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def workflow(path: Path) -> dict[str, Any]:
    """YAML 1.1 reads the key `on` as True, which these tests do not use."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_python_package_has_the_licence() -> None:
    assert project()["license"] == LICENSE
    assert [(ROOT / name).is_file() for name in project()["license-files"]] == [True]


def test_licence_text_is_the_same_in_both_packages() -> None:
    text = (ROOT / "LICENSE").read_text()

    assert "Apache License\n                           Version 2.0" in text
    assert (ROOT / "clients/js/LICENSE").read_text() == text


@pytest.mark.parametrize("folder", PACKAGES)
def test_node_package_and_its_lock_have_the_licence(folder: str) -> None:
    package = json.loads((ROOT / folder / "package.json").read_text())
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())

    assert package["license"] == LICENSE
    assert lock["packages"][""]["license"] == LICENSE


@pytest.mark.parametrize("folder", PACKAGES)
def test_node_lock_has_hashes_and_no_urls(folder: str) -> None:
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    locked = [entry for name, entry in lock["packages"].items() if name and not CLIENT.items() <= entry.items()]

    assert [entry for entry in locked if "resolved" in entry] == []
    assert [entry for entry in locked if not entry["integrity"].startswith("sha512-")] == []


def test_dependabot_updates_every_node_package() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    (npm,) = [update for update in updates if update["package-ecosystem"] == "npm"]

    assert sorted(npm["directories"]) == sorted(f"/{folder}" for folder in PACKAGES)


def test_examples_use_the_versions_of_the_client_tests() -> None:
    tested = json.loads((ROOT / "clients/js/package.json").read_text())["devDependencies"]
    for folder in EXAMPLES:
        package = json.loads((ROOT / folder / "package.json").read_text())
        used = package["dependencies"] | package["devDependencies"]
        assert {name: version for name, version in used.items() if version != tested.get(name, version)} == {}


@pytest.mark.parametrize("name", ["openapi.json", "docs/openapi/user.json", "docs/openapi/operators.json"])
def test_openapi_document_has_the_licence(name: str) -> None:
    info = json.loads((ROOT / name).read_text())["info"]

    assert info["license"] == {"name": "Apache 2.0", "identifier": LICENSE}


def test_ci_runs_each_python_version_of_the_classifiers() -> None:
    matrix = workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["checks"]["strategy"]["matrix"]
    classified = [name.removeprefix(PYTHON) for name in project()["classifiers"] if name.startswith(f"{PYTHON}3.")]

    assert matrix["python"] == classified
    assert project()["requires-python"] == f">={classified[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_pins_actions_by_commit_with_their_version(path: Path) -> None:
    used = re.findall(r"^\s*(?:- )?uses: (.+)$", path.read_text(), re.MULTILINE)
    foreign = [action for action in used if not action.startswith("$/")]

    assert len(foreign) > 0
    assert [action for action in foreign if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)] == []


def test_workflows_use_one_commit_per_action() -> None:
    used = {use for path in WORKFLOWS for use in re.findall(r"uses: (\S+@[0-9a-f]{40})", path.read_text())}

    assert len(used) == len({use.split("@")[0] for use in used})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_grants_permissions_per_job_and_keeps_no_credentials(path: Path) -> None:
    found = workflow(path)
    steps = [step for job in found["jobs"].values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]

    assert found["permissions"] == {}
    assert [name for name, job in found["jobs"].items() if "permissions" not in job] == []
    assert [name for name, job in found["jobs"].items() if "uses" not in job and "timeout-minutes" not in job] == []
    assert [step for step in checkouts if step["with"]["persist-credentials"] is not False] == []

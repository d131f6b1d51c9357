"""docs/dependencies.md gives a reason for each runtime dependency, and no file names a package index."""

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def table_of(heading: str) -> list[str]:
    """The packages in the tables below a heading of docs/dependencies.md."""
    text = (ROOT / "docs/dependencies.md").read_text()
    section = re.split(r"^## ", text.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `([^`]+)` \| \S.* \|$", section, re.MULTILINE)


def names(requirements: list[str]) -> list[str]:
    return sorted(Requirement(text).name for text in requirements)


def test_each_runtime_dependency_of_the_service_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["tracing"]]

    assert sorted(table_of("Runtime dependencies of the service")) == names(required)


def test_each_runtime_dependency_of_the_client_has_a_reason() -> None:
    package = json.loads((ROOT / "clients/js/package.json").read_text())

    assert "dependencies" not in package
    assert table_of("Runtime dependencies of the client") == sorted(package["peerDependencies"])


def test_requirements_of_the_lock_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements/runtime.in").read_text().splitlines()
    listed = [line.partition("  #")[0].replace('"', "'") for line in lines if not line.startswith("#")]

    assert sorted(map(str, map(Requirement, listed))) == sorted(map(str, map(Requirement, project["dependencies"])))


def test_documentation_names_each_lock_file() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    locks = {re.sub(r"^uvicorn-.*", "uvicorn-*.lock", path.name) for path in (ROOT / "requirements").glob("*.lock")}

    assert {name for name in locks if f"`requirements/{name}`" not in text} == set()


def test_make_lock_writes_each_lock_file() -> None:
    written = re.search(r"for name in ([a-z ]+); do", (ROOT / "Makefile").read_text())

    assert written is not None
    assert sorted(written[1].split()) == sorted(path.stem for path in (ROOT / "requirements").glob("*.in"))

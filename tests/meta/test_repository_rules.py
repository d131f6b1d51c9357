"""Rules of this repository that a program can check."""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.api.problems import KINDS, problem_of
from app.config.settings import Settings, known_variables, variable_of
from app.vending import errors

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "app").rglob("*.py"))


def all_errors(base: type[errors.DialtoneError] = errors.DialtoneError) -> set[type[errors.DialtoneError]]:
    return {base} | {error for child in base.__subclasses__() for error in all_errors(child)}


def installed_packages() -> set[str]:
    return {canonicalize_name(distribution.name) for distribution in importlib.metadata.distributions()}


ABSTRACT = {errors.DialtoneError, errors.TelnyxError}


NAMED = {error.__name__: error for error in sorted(all_errors() - ABSTRACT, key=str)}


@pytest.mark.parametrize("error", NAMED.values(), ids=NAMED)
def test_every_error_has_a_status_and_is_in_the_error_tree(error: type[errors.DialtoneError]) -> None:
    assert error in KINDS
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


def test_temporary_errors_have_a_bounded_retry_after() -> None:
    for _ in range(200):
        problem = problem_of(errors.TelnyxRateLimited(retry_after_seconds=7), "id")
        seconds = int(dict(problem.headers)["Retry-After"])
        assert 7 <= seconds <= 12
    assert int(dict(problem_of(errors.IssueInProgress(retry_after_seconds=1e9), "id").headers)["Retry-After"]) == 60


def test_only_temporary_errors_are_retryable_and_codes_have_one_status() -> None:
    for kind in KINDS.values():
        assert kind.retryable == (kind.status in (429, 503))
    assert len({(kind.code, kind.status) for kind in KINDS.values()}) == len({kind.code for kind in KINDS.values()})


def test_settings_and_example_env_file_match() -> None:
    text = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#? ?((?:DIALTONE|TELNYX)_[A-Z_]+)=", text, re.MULTILINE))

    assert {variable_of(name) for name in Settings.model_fields} <= named
    assert named <= known_variables()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_a_docstring_and_at_most_400_lines(source: Path) -> None:
    text = source.read_text()
    doc = ast.get_docstring(ast.parse(text)) or ""

    assert doc.split("\n")[0].endswith((".", ":")), "the first line is a sentence"
    assert len(text.splitlines()) <= 400


def test_no_module_has_a_catch_all_name() -> None:
    drawers = {"utils", "util", "helpers", "core", "common", "services", "manager", "managers", "misc", "base"}

    assert not {path.stem for path in SOURCES} & drawers
    assert not {path.parent.name for path in SOURCES} & drawers


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.name)
def test_locks_have_hashes_and_no_urls(lock: Path) -> None:
    text = lock.read_text()

    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text
    pinned = re.findall(r"^[a-z0-9][^ \n]*==", text, re.MULTILINE)
    assert len(pinned) > 0
    assert text.count("--hash=sha256:") >= len(pinned)


def test_lock_has_the_extras_that_its_packages_require() -> None:
    # If pytest-cov requires coverage[toml] and the lock has only coverage, `pip install --require-hashes` takes the
    # newest release of coverage, and fails, because that release has no hash.
    lock = (ROOT / "requirements" / "dev.lock").read_text()
    pins = {Requirement(pin) for pin in re.findall(r"^([a-z0-9][^ ;\n]*==[^ ;\n]*)", lock, re.MULTILINE)}
    installed = installed_packages()
    locked = {pin.name: pin.extras for pin in pins}
    required = [
        Requirement(text)
        for pin in pins
        for text in (importlib.metadata.requires(pin.name) if pin.name in installed else None) or []
        if "extra ==" not in text
    ]

    missing = [str(each) for each in required if each.name in locked and not each.extras <= locked[each.name]]
    assert any(each.extras for each in required)
    assert missing == []


FLOORS = {
    "starlette": (1, 3, 1),
    "fastapi": (0, 132),
    "h11": (0, 16),
    "httptools": (0, 8),
    "cryptography": (50,),
    "pydantic": (2, 11),
}


@pytest.mark.parametrize("package", FLOORS)
def test_libraries_are_newer_than_their_last_known_vulnerability(package: str) -> None:
    version = tuple(int(part) for part in importlib.metadata.version(package).split(".")[:3])

    assert version >= FLOORS[package]


def test_python_jose_is_pinned_and_python_multipart_is_absent() -> None:
    assert importlib.metadata.version("python-jose") == "3.5.0"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("python-multipart")


def test_changelog_has_this_version() -> None:
    from app import __version__

    heading = "Unreleased" if ".dev" in __version__ else __version__
    assert f"## [{heading}]" in (ROOT / "CHANGELOG.md").read_text()

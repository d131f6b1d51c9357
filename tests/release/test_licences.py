"""Licences of locked packages: where they are read, which expressions are allowed, and the findings of the others."""

from email.message import Message
from importlib.metadata import PackageMetadata, PackageNotFoundError
from pathlib import Path
from typing import cast

import pytest

from release.licences import (
    LicencePolicy,
    MetadataReader,
    check_licences,
    check_policy,
    licence_of,
    read_policy,
)
from release.locks import LockedPackage, npm_packages, python_packages

ROOT = Path(__file__).parents[2]
POLICY_OF_MIT = LicencePolicy(frozenset({"MIT", "Apache-2.0"}), {})
PACKAGE = LockedPackage("pypi", "one", "1.0", ("ab" * 32,))


def installed(*fields: tuple[str, str], version: str = "1.0") -> MetadataReader:
    """Reads a package whose metadata has the fields."""
    message = Message()
    for name, value in (("Version", version), *fields):
        message[name] = value
    return lambda name: cast("PackageMetadata", message)


def not_installed(name: str) -> PackageMetadata:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT")], "MIT"),
        ([("License-Expression", "mit or apache-2.0")], "MIT OR Apache-2.0"),
        ([("License", "Apache-2.0")], "Apache-2.0"),
        ([("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("License", "a long text"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
    ],
)
def test_licence_is_read_from_the_metadata(fields: list[tuple[str, str]], expected: str) -> None:
    assert licence_of(PACKAGE, POLICY_OF_MIT, installed(*fields)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("License", "Apache 2")],
        [("License", "a long text")],
        [("License-Expression", "unlisted")],
        [("Classifier", "License :: OSI Approved :: BSD License")],
        [("License", "MIT"), ("Classifier", "License :: Other/Proprietary License")],
        [
            ("Classifier", "License :: OSI Approved :: MIT License"),
            ("Classifier", "License :: OSI Approved :: Apache Software License"),
        ],
    ],
)
def test_ambiguous_metadata_is_unknown(fields: list[tuple[str, str]]) -> None:
    assert licence_of(PACKAGE, POLICY_OF_MIT, installed(*fields)) == ""


def test_other_installed_version_is_unknown() -> None:
    assert licence_of(PACKAGE, POLICY_OF_MIT, installed(("License-Expression", "MIT"), version="1.1")) == ""


def test_reading_in_the_policy_is_of_one_version() -> None:
    policy = LicencePolicy(frozenset({"MIT"}), {"one==1.0": "MIT"})
    newer = LockedPackage("pypi", "one", "1.1", PACKAGE.hashes)

    assert licence_of(PACKAGE, policy, not_installed) == "MIT"
    assert licence_of(newer, policy, not_installed) == ""


@pytest.mark.parametrize("reading", ["", "MIT OR", "(MIT", "MIT MIT", "Apache 2"])
def test_reading_that_is_no_expression_is_unknown(reading: str) -> None:
    policy = LicencePolicy(frozenset({"MIT"}), {"one==1.0": reading})

    assert licence_of(PACKAGE, policy, not_installed) == ""


@pytest.mark.parametrize(("text", "expected"), [("(MIT OR CC0-1.0)", "(MIT OR CC0-1.0)"), ("UNLICENSED", "")])
def test_licence_of_npm_is_in_the_lock(text: str, expected: str) -> None:
    package = LockedPackage("npm", "one", "1.0", PACKAGE.hashes, license=text)

    assert licence_of(package, POLICY_OF_MIT, not_installed) == expected


@pytest.mark.parametrize(
    "expression",
    ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only OR MIT", "MIT AND Apache-2.0", "(MIT OR GPL-3.0-only) AND Apache-2.0"],
)
def test_expression_is_permitted(expression: str) -> None:
    assert POLICY_OF_MIT.permits(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "GPL-3.0-only OR MIT AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ],
)
def test_expression_is_not_permitted(expression: str) -> None:
    assert not POLICY_OF_MIT.permits(expression)


def test_unknown_licence_names_the_package_and_the_remedy() -> None:
    (finding,) = check_licences("requirements/runtime.lock", [(PACKAGE, "")], POLICY_OF_MIT)

    assert str(finding) == (
        "requirements/runtime.lock: the licence of one==1.0 is unknown; "
        "install the locked packages, or read its licence and add it to [reviewed] in release/licences.toml"
    )


def test_licence_that_is_not_allowed_names_the_package_and_the_licence() -> None:
    (finding,) = check_licences("requirements/runtime.lock", [(PACKAGE, "GPL-3.0-only")], POLICY_OF_MIT)

    assert finding.problem == "the licence of one==1.0 is GPL-3.0-only, which is not allowed"


def test_stale_entries_of_the_policy_are_findings() -> None:
    policy = LicencePolicy(frozenset({"MIT", "ISC"}), {"two==2.0": "MIT"})

    problems = [finding.problem for finding in check_policy([(PACKAGE, "MIT")], policy)]

    assert problems == ["no lock file has two==2.0", "no package has the licence ISC"]


def test_all_licences_of_this_repository_are_known_and_allowed() -> None:
    policy = read_policy(ROOT)
    packages = [
        *python_packages(ROOT, "requirements/runtime.lock"),
        *python_packages(ROOT, "requirements/tracing.lock"),
        *npm_packages(ROOT, "clients/js/package-lock.json"),
    ]
    licences = [(package, licence_of(package, policy)) for package in packages]

    assert [str(finding) for finding in check_licences("lock", licences, policy)] == []
    assert [str(finding) for finding in check_policy(licences, policy)] == []

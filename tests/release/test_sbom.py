"""SBOMs: each locked package with its version, hashes, licence and parents, the same for each build of a commit."""

from pathlib import Path
from typing import Any

from release.locks import LockedPackage, python_packages
from release.sbom import client_sbom, missing_packages, python_sbom

ROOT = Path(__file__).parents[2]
ONE = LockedPackage("pypi", "one", "1.0", ("ab" * 32, "cd" * 32), required_by=("-r runtime.in",))
TWO = LockedPackage("pypi", "Two_x", "2.0", ("ef" * 32,), 'sys_platform == "win32"', ("one",))


def sbom_of(*packages: LockedPackage) -> dict[str, Any]:
    return python_sbom("1.2.3", [(package, "MIT") for package in packages], epoch_seconds=0)


def test_component_has_version_hashes_licence_and_marker() -> None:
    component = sbom_of(ONE, TWO)["components"][1]

    assert (component["name"], component["version"], component["purl"]) == ("Two_x", "2.0", "pkg:pypi/two-x@2.0")
    assert component["licenses"] == [{"expression": "MIT"}]
    assert component["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]
    assert component["properties"] == [{"name": "dialtone:environment_marker", "value": 'sys_platform == "win32"'}]


def test_dependencies_are_those_of_the_lock() -> None:
    found = {entry["ref"]: entry["dependsOn"] for entry in sbom_of(ONE, TWO)["dependencies"]}

    assert found == {
        "dialtone@1.2.3": ["pkg:pypi/one@1.0"],
        "pkg:pypi/one@1.0": ["pkg:pypi/two-x@2.0"],
        "pkg:pypi/two-x@2.0": [],
    }


def test_time_is_that_of_the_commit() -> None:
    assert sbom_of(ONE)["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"


def test_sbom_names_every_locked_package() -> None:
    packages = python_packages(ROOT, "requirements/tracing.lock")

    assert missing_packages("sbom.json", sbom_of(*packages), packages) == []


def test_sbom_has_no_address_of_a_package_index() -> None:
    text = str(sbom_of(*python_packages(ROOT, "requirements/tracing.lock")))

    assert text.count("://") == 1
    assert "http://cyclonedx.org/schema/bom-1.6.schema.json" in text


def test_missing_package_is_named() -> None:
    (finding,) = missing_packages("sbom.json", sbom_of(ONE), [ONE, TWO])

    assert str(finding) == "sbom.json: Two_x==2.0 is missing, or has other hashes; compare it with the lock file"


def test_package_with_a_missing_hash_is_named() -> None:
    more = LockedPackage("pypi", "one", "1.0", (*ONE.hashes, "00" * 32))

    assert len(missing_packages("sbom.json", sbom_of(ONE), [more])) == 1


def test_client_sbom_has_no_random_number_and_the_name_of_the_package() -> None:
    printed = {
        "serialNumber": "urn:uuid:1",
        "metadata": {"timestamp": "now", "component": {"name": "js"}},
        "version": 1,
    }

    assert client_sbom(printed, "dialtone-client", 0) == {
        "metadata": {"timestamp": "1970-01-01T00:00:00Z", "component": {"name": "dialtone-client"}},
        "version": 1,
    }

"""Software bills of materials in CycloneDX JSON: each locked package with version, hashes, licence and dependencies."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from packaging.utils import canonicalize_name

from release.findings import Finding
from release.licences import Licences
from release.locks import LockedPackage

LICENCE = "Apache-2.0"


def timestamp(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def python_sbom(version: str, licences: Licences, epoch_seconds: int) -> dict[str, Any]:
    """The SBOM of the service. It depends only on its arguments, so it has no serial number."""
    root = f"dialtone@{version}"
    children: dict[str, set[str]] = {root: set()}
    for package, _ in licences:
        children.setdefault(package.url, set())
    by_name: dict[str, list[str]] = {}
    for package, _ in licences:
        by_name.setdefault(canonicalize_name(package.name), []).append(package.url)
    for package, _ in licences:
        for parent in package.required_by:
            parents = [root] if parent.startswith("-r ") else by_name[canonicalize_name(parent)]
            for reference in parents:
                children[reference].add(package.url)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(epoch_seconds),
            "component": {
                "bom-ref": root,
                "type": "application",
                "name": "dialtone",
                "version": version,
                "licenses": [{"license": {"id": LICENCE}}],
            },
        },
        "components": [_component(package, licence) for package, licence in licences],
        "dependencies": [{"ref": parent, "dependsOn": sorted(found)} for parent, found in sorted(children.items())],
    }


def _component(package: LockedPackage, licence: str) -> dict[str, Any]:
    """The lock has the hashes of all files of a release, so they belong to the distribution, not to the component."""
    component: dict[str, Any] = {
        "bom-ref": package.url,
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": package.url,
        "externalReferences": [
            {
                "type": "distribution",
                "url": package.url,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in package.hashes],
            }
        ],
    }
    if licence:
        component["licenses"] = [{"expression": licence}]
    if package.marker:
        component["properties"] = [{"name": "dialtone:environment_marker", "value": package.marker}]
    return component


def client_sbom(printed: dict[str, Any], name: str, epoch_seconds: int) -> dict[str, Any]:
    """The document that `npm sbom` printed, without its serial number and with a time that a second build repeats.

    npm names the package after its folder.
    """
    found = {key: value for key, value in printed.items() if key != "serialNumber"}
    component = found["metadata"]["component"] | {"name": name}
    return found | {"metadata": found["metadata"] | {"timestamp": timestamp(epoch_seconds), "component": component}}


def missing_packages(path: str, sbom: dict[str, Any], packages: Sequence[LockedPackage]) -> list[Finding]:
    """Locked packages that the SBOM does not name with their version and all their hashes."""
    named: dict[str, set[str]] = {}
    for component in sbom["components"]:
        places = [component, *component.get("externalReferences", [])]
        hashes = {found["content"] for place in places for found in place.get("hashes", [])}
        named.setdefault(component["purl"], set()).update(hashes)
    return [
        Finding(path, f"{package} is missing, or has other hashes", "compare it with the lock file")
        for package in packages
        if not set(package.hashes) <= named.get(package.url, set())
    ]

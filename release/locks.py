"""The packages that the lock files pin, with versions, hashes and the packages that require them."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from release.files import read_json, read_text
from release.findings import CheckFailed


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A package that a lock file pins.

    `hashes` are in hexadecimal. `required_by` are names of packages, and `-r <file>` for direct requirements. `license`
    is empty if the lock file has none.
    """

    ecosystem: Literal["pypi", "npm"]
    name: str
    version: str
    hashes: tuple[str, ...]
    marker: str = ""
    required_by: tuple[str, ...] = ()
    license: str = ""

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def url(self) -> str:
        """The package URL (purl), which SBOMs use as identifier."""
        name = canonicalize_name(self.name) if self.ecosystem == "pypi" else quote(self.name, safe="/")
        return f"pkg:{self.ecosystem}/{name}@{self.version}"


def python_packages(root: Path, lock: str) -> list[LockedPackage]:
    """The packages of a compiled requirements file. `lock` is its path below `root`.

    Raises CheckFailed for a package without a version or a hash.
    """
    packages = [_python_package(lock, entry) for entry in _entries(read_text(root, lock))]
    if not packages:
        raise CheckFailed(lock, "contains no package", "run `make lock`")
    return packages


def _entries(text: str) -> Iterator[str]:
    """Each requirement with the lines that belong to it. A requirement starts in the first column."""
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if entry.strip() and not entry.startswith("#"):
            yield entry


def _python_package(lock: str, entry: str) -> LockedPackage:
    try:
        pin = Requirement(re.split(r"\s*(?:\\|--hash|#|\n)", entry, maxsplit=1)[0])
    except InvalidRequirement as error:
        raise CheckFailed(lock, f"cannot read {entry.split()[0]!r}", "run `make lock`") from error
    versions = [specifier.version for specifier in pin.specifier if specifier.operator == "=="]
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
    if pin.url or len(versions) != 1 or len(pin.specifier) != 1 or not hashes:
        raise CheckFailed(lock, f"{pin.name} has no pinned version with a hash", "run `make lock`")
    comments = [comment.strip() for comment in re.findall(r"^ +#(.*)$", entry, re.MULTILINE)]
    parents = (re.sub(r"^via(?:\s+|$)", "", comment) for comment in comments)
    required_by = tuple(parent for parent in parents if parent)
    return LockedPackage("pypi", pin.name, versions[0], tuple(hashes), str(pin.marker or ""), required_by)


def npm_packages(root: Path, lock: str) -> list[LockedPackage]:
    """The packages of a package-lock.json, each name and version once. Raises CheckFailed for one without a hash."""
    entries: dict[str, dict[str, Any]] = read_json(root, lock, "packages")
    found = {}
    for path, entry in entries.items():
        if not path:
            continue
        name = entry.get("name") or path.rpartition("node_modules/")[2]
        try:
            algorithm, _, digest = entry["integrity"].partition("-")
            if algorithm != "sha512":
                raise ValueError(algorithm)
            hexadecimal = base64.b64decode(digest, validate=True).hex()
        except (KeyError, ValueError, binascii.Error) as error:
            remedy = "delete its entry, and run `npm install --package-lock-only`"
            raise CheckFailed(lock, f"{name} has no SHA-512 hash", remedy) from error
        package = LockedPackage("npm", name, entry["version"], (hexadecimal,), license=str(entry.get("license") or ""))
        found[name, package.version] = package
    return list(found.values())

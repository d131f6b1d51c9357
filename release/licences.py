"""The licences of all locked packages, and whether release/licences.toml allows them."""

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, PackageNotFoundError
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from release.files import read_toml
from release.findings import Finding
from release.locks import LockedPackage

POLICY = "release/licences.toml"
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Classifiers that name one licence. `BSD License`, for example, is the name of several."""

MetadataReader = Callable[[str], PackageMetadata]
Licences = Sequence[tuple[LockedPackage, str]]
"""Packages with their SPDX expression, which is empty if it is unknown."""


@dataclass(frozen=True, slots=True)
class LicencePolicy:
    """SPDX identifiers that are allowed, and expressions by `name==version` that were read in the packages."""

    allowed: frozenset[str]
    reviewed: dict[str, str]

    def permits(self, expression: str) -> bool:
        """Whether one choice of an `OR`, and all parts of an `AND`, are allowed. The expression is valid."""
        return _Expression(expression, self.allowed).permitted()


class _Expression:
    """An SPDX expression. `AND` binds stronger than `OR`. An exception after `WITH` is part of the identifier."""

    def __init__(self, text: str, allowed: frozenset[str]) -> None:
        joined = re.sub(r"\s+WITH\s+", " WITH\0", text)
        self._parts = [part.replace("\0", " ") for part in re.findall(r"[()]|[^\s()]+(?: WITH\0[^\s()]+)?", joined)]
        self._allowed = allowed

    def permitted(self) -> bool:
        found = self._all()
        while self._parts[:1] == ["OR"]:
            self._parts.pop(0)
            found = self._all() or found
        return found

    def _all(self) -> bool:
        found = self._one()
        while self._parts[:1] == ["AND"]:
            self._parts.pop(0)
            found = self._one() and found
        return found

    def _one(self) -> bool:
        part = self._parts.pop(0)
        if part != "(":
            return part in self._allowed
        found = self.permitted()
        self._parts.pop(0)
        return found


def read_policy(root: Path) -> LicencePolicy:
    found = read_toml(root, POLICY)
    return LicencePolicy(frozenset(found.get("allowed", [])), found.get("reviewed", {}))


def licence_of(
    package: LockedPackage, policy: LicencePolicy, metadata: MetadataReader = importlib.metadata.metadata
) -> str:
    """The SPDX expression of the package, or an empty text if it is unknown.

    The policy comes first, then the lock file, then the metadata of the installed package if it has the locked version.
    """
    if reviewed := policy.reviewed.get(str(package)):
        return _spdx(reviewed)
    if package.license:
        return _spdx(package.license)
    try:
        found = metadata(package.name)
    except PackageNotFoundError:
        return ""
    if found["Version"] != package.version:
        return ""
    names = {text.rpartition(" :: ")[2] for text in found.get_all("Classifier") or [] if text.startswith("License :: ")}
    return (
        _spdx(_field(found, "License-Expression"))
        or (_CLASSIFIERS.get(next(iter(names)), "") if len(names) == 1 else "")
        or ("" if names else _spdx(_field(found, "License")))
    )


def _field(metadata: PackageMetadata, name: str) -> str:
    return str((metadata.get_all(name) or [""])[0])


def _spdx(text: str) -> str:
    """The text if it is a valid SPDX expression. Free texts such as `Apache 2` are not."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return ""


def check_licences(lock: str, licences: Licences, policy: LicencePolicy) -> Iterator[Finding]:
    """Every package has a known licence that the policy permits. `lock` names the file in the findings."""
    for package, licence in licences:
        if not licence:
            remedy = f"install the locked packages, or read its licence and add it to [reviewed] in {POLICY}"
            yield Finding(lock, f"the licence of {package} is unknown", remedy)
        elif not policy.permits(licence):
            remedy = f"replace the package, or add the licence to `allowed` in {POLICY}"
            yield Finding(lock, f"the licence of {package} is {licence}, which is not allowed", remedy)


def check_policy(licences: Licences, policy: LicencePolicy) -> Iterator[Finding]:
    """Every entry of the policy belongs to a locked package. `licences` are those of all lock files."""
    locked = {str(package) for package, _ in licences}
    used = {name for _, licence in licences for name in re.findall(r"[^\s()]+", licence)}
    for name in sorted(policy.reviewed.keys() - locked):
        yield Finding(POLICY, f"no lock file has {name}", "delete its entry in [reviewed]")
    for name in sorted(policy.allowed - used):
        yield Finding(POLICY, f"no package has the licence {name}", "delete it from `allowed`")

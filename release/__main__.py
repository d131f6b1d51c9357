"""`make release-check`: checks that HEAD can be released, and writes the artifacts to dist/."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from release import builds, licences, locks, sbom, versions
from release.files import read_json
from release.findings import CheckFailed, Finding

CHECKSUMS = "SHA256SUMS"
PYTHON_LOCKS = {"runtime": "", "tracing": "-tracing"}
"""Lock files of the service, and what they add to the name of the SBOM."""


class Report:
    """Prints each check with its findings, one per line."""

    def __init__(self, rehearsal: bool) -> None:
        self._rehearsal = rehearsal
        self.failed = 0

    def check(self, name: str, find: Callable[[], Iterable[Finding]]) -> None:
        """Runs the check. Findings that only a release forbids do not fail a rehearsal."""
        try:
            findings = list(find())
        except CheckFailed as error:
            findings = [error.finding]
        except OSError as error:
            problem = error.strerror or str(error)
            findings = [Finding(str(error.filename or name), problem, "correct it, and run the check again")]
        ignored = [finding for finding in findings if finding.release_only and self._rehearsal]
        failures = [finding for finding in findings if finding not in ignored]
        self.failed += len(failures)
        for finding in failures:
            print(f"FAIL  {name}: {finding}")
        for finding in ignored:
            print(f"note  {name}: {finding}")
        if not findings:
            print(f"ok    {name}")


class Artifacts:
    """Builds and describes one commit in a temporary folder."""

    def __init__(self, root: Path, work: Path, validator: Path | None) -> None:
        self.root = root
        self.out = work / "dist"
        self.out.mkdir()
        self._work = work
        self._validator = validator
        self._folders: list[Path] = []
        self._policy = licences.LicencePolicy(frozenset(), {})
        self._licences: list[tuple[locks.LockedPackage, str]] = []

    def export(self) -> Iterable[Finding]:
        self._folders = builds.export_twice(self.root, self._work)
        self.epoch_seconds = builds.commit_time(self.root)
        self.version = versions.project_version(self._folders[0])
        self._policy = licences.read_policy(self._folders[0])
        return builds.check_committed(self.root)

    def python_package(self) -> Iterable[Finding]:
        return self._keep(builds.build_python(self._folders, self.epoch_seconds))

    def client_package(self) -> Iterable[Finding]:
        return self._keep(builds.build_client(self._folders, self.root / builds.CLIENT / "node_modules"))

    def _keep(self, built: tuple[list[Path], list[Finding]]) -> Iterable[Finding]:
        files, findings = built
        for file in files:
            shutil.copy(file, self.out)
        return findings

    def python_licences(self) -> Iterable[Finding]:
        for name in PYTHON_LOCKS:
            yield from self._check_licences(f"requirements/{name}.lock", self._python_packages(name))

    def client_licences(self) -> Iterable[Finding]:
        yield from self._check_licences(versions.CLIENT_LOCK, self._client_packages())
        yield from licences.check_policy(self._licences, self._policy)
        lines = sorted({f"{package.name} {package.version} {licence}\n" for package, licence in self._licences})
        (self.out / f"dialtone-{self.version}-licences.txt").write_text("".join(lines))

    def _check_licences(self, lock: str, packages: list[locks.LockedPackage]) -> Iterable[Finding]:
        found = self._with_licences(packages)
        self._licences += found
        return licences.check_licences(lock, found, self._policy)

    def _with_licences(self, packages: list[locks.LockedPackage]) -> list[tuple[locks.LockedPackage, str]]:
        return [(package, licences.licence_of(package, self._policy)) for package in packages]

    def _python_packages(self, name: str) -> list[locks.LockedPackage]:
        return locks.python_packages(self._folders[0], f"requirements/{name}.lock")

    def _client_packages(self) -> list[locks.LockedPackage]:
        return locks.npm_packages(self._folders[0], versions.CLIENT_LOCK)

    def python_sboms(self) -> Iterable[Finding]:
        for name, suffix in PYTHON_LOCKS.items():
            packages = self._python_packages(name)
            document = sbom.python_sbom(self.version, self._with_licences(packages), self.epoch_seconds)
            yield from self._write_sbom(f"dialtone-{self.version}{suffix}.cdx.json", document, packages)

    def client_sbom(self) -> Iterable[Finding]:
        package = read_json(self._folders[0], versions.CLIENT)
        command = ["npm", "sbom", "--sbom-format", "cyclonedx", "--package-lock-only"]
        printed = builds.run(command, self._folders[0] / builds.CLIENT, "run `npm ci` in clients/js")
        document = sbom.client_sbom(json.loads(printed), package["name"], self.epoch_seconds)
        name = f"{package['name']}-{package['version']}.cdx.json"
        return self._write_sbom(name, document, self._client_packages())

    def _write_sbom(
        self, name: str, document: dict[str, Any], packages: Sequence[locks.LockedPackage]
    ) -> Iterable[Finding]:
        path = self.out / name
        path.write_text(json.dumps(document, indent=2) + "\n")
        yield from sbom.missing_packages(name, document, packages)
        if self._validator is not None:
            script = self.root / "release" / "validate_sbom.py"
            builds.run([str(self._validator), str(script), str(path)], self.root, "compare it with CycloneDX's schema")

    def publish(self, folder: Path) -> None:
        """Moves the files to the folder, with their checksums."""
        files = sorted(self.out.iterdir())
        (self.out / CHECKSUMS).write_text("".join(f"{builds.sha256(file)}  {file.name}\n" for file in files))
        shutil.copytree(self.out, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the clone to check (the current folder)")
    parser.add_argument("--rehearsal", action="store_true", help="accept an unreleased version")
    parser.add_argument("--tag", default="", help="compare the version with this tag")
    parser.add_argument("--validator", type=Path, help="a Python that has CycloneDX's library, to validate SBOMs")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    dist = root / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    report = Report(options.rehearsal)
    with tempfile.TemporaryDirectory() as work:
        artifacts = Artifacts(root, Path(work), options.validator)
        report.check("versions", lambda: versions.check_versions(root, options.tag))
        report.check("changelog", lambda: versions.check_changelog(root))
        report.check("commit", artifacts.export)
        if report.failed:
            print("The packages are not built. Fix the failures, and run the check again.")
            return 1
        report.check("wheel and sdist", artifacts.python_package)
        report.check("client package", artifacts.client_package)
        report.check("licences of Python packages", artifacts.python_licences)
        report.check("licences of npm packages", artifacts.client_licences)
        report.check("SBOM of the service", artifacts.python_sboms)
        report.check("SBOM of the client", artifacts.client_sbom)
        if report.failed:
            print(f"{report.failed} failures. dist/ is not written.")
            return 1
        artifacts.publish(dist)
    print(f"dist/ contains the artifacts of {artifacts.version}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

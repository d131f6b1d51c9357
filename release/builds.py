"""Builds of the Python package and of the client package, each twice, and what the files may contain."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from release.findings import CheckFailed, Finding

CLIENT = "clients/js"
_WHEEL_FOLDERS = {"app", "migrations"}
_CLIENT_FILES = {"package.json", "README.md", "LICENSE", "react/package.json", "token-source/package.json"}
_DAY_SECONDS = 86_400


def run(command: Sequence[str], folder: Path, remedy: str, environment: Mapping[str, str] | None = None) -> str:
    """The output of the command. Raises CheckFailed with the last line that it printed, or if it is not installed."""
    name = " ".join(command[:2])
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands, without a shell
            command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise CheckFailed(command[0], "is not installed", f"install {command[0]}") from error
    if done.returncode != 0:
        printed = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise CheckFailed(name, f"failed: {printed}", remedy)
    return done.stdout


def commit_time(root: Path) -> int:
    """The time of HEAD in seconds, which builds use as SOURCE_DATE_EPOCH."""
    return int(run(["git", "log", "-1", "--format=%ct"], root, "run it in a clone with at least one commit"))


def check_committed(root: Path) -> Iterator[Finding]:
    """The artifacts are built from HEAD, so a release has no uncommitted changes."""
    changed = run(["git", "status", "--porcelain"], root, "run it in a clone").splitlines()
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        yield Finding(changed[0][3:] + others, "changed, but the artifacts contain HEAD", "commit the change", True)


def export(root: Path, folder: Path, age_seconds: int = 0) -> Path:
    """Writes the files of HEAD to the folder, with times that are `age_seconds` before the commit."""
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".tar")
    run(["git", "archive", "--output", str(archive), "HEAD"], root, "run it in a clone")
    run(["tar", "--extract", "--file", str(archive)], folder, "free some space")
    archive.unlink()
    for path in sorted(folder.rglob("*")):
        changed = path.lstat().st_mtime - age_seconds
        os.utime(path, (changed, changed), follow_symlinks=False)
    return folder


def export_twice(root: Path, work: Path) -> list[Path]:
    """HEAD in two folders. The files of the second are a day older, so a build that reads their times differs."""
    return [export(root, work / "first"), export(root, work / "second" / "folder", _DAY_SECONDS)]


def build_python(folders: Sequence[Path], epoch_seconds: int) -> tuple[list[Path], list[Finding]]:
    """The wheel and the sdist of each exported folder, built in different time zones, and what is wrong with them."""
    built = []
    for folder, zone in zip(folders, ["UTC", "Asia/Kathmandu"], strict=True):
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--target", "sdist"]
        run(command, folder, "run `make release-check`", {"SOURCE_DATE_EPOCH": str(epoch_seconds), "TZ": zone})
        built.append(sorted((folder / "dist").iterdir()))
    findings = list(differences("pyproject.toml", *built))
    for wheel in (path for path in built[0] if path.suffix == ".whl"):
        findings += wheel_findings(wheel)
    return built[0], findings


def build_client(folders: Sequence[Path], modules: Path) -> tuple[list[Path], list[Finding]]:
    """The package that npm would publish, of each exported folder, and what is wrong with it. `modules` has tools."""
    if not modules.is_dir():
        raise CheckFailed("clients/js/node_modules", "does not exist", "run `make client`")
    built = []
    for folder in folders:
        (folder / CLIENT / "node_modules").symlink_to(modules.resolve())
        packed = folder / "packed"
        packed.mkdir()
        run(["npm", "pack", "--silent", "--pack-destination", str(packed)], folder / CLIENT, "run `make client`")
        built.append(sorted(packed.iterdir()))
    findings = list(differences("clients/js/package.json", *built))
    return built[0], findings + [finding for path in built[0] for finding in client_findings(path)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(path: str, first: Sequence[Path], second: Sequence[Path]) -> Iterator[Finding]:
    """Files of two builds that differ. `path` names the file which configures the build."""
    hashes = [{file.name: sha256(file) for file in files} for files in (first, second)]
    for name in sorted(hashes[0].keys() | hashes[1].keys()):
        if hashes[0].get(name) != hashes[1].get(name):
            remedy = "compare the two builds with diffoscope, and remove what depends on time or folder"
            yield Finding(path, f"two builds of {name} differ", remedy)


def wheel_findings(wheel: Path) -> Iterator[Finding]:
    """A wheel contains app, migrations and its metadata, and no test."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    for folder in sorted(_WHEEL_FOLDERS - {name.partition("/")[0] for name in names}):
        yield Finding("pyproject.toml", f"{wheel.name} lacks {folder}/", "add it to the wheel's packages")
    for name in names:
        top = name.partition("/")[0]
        if (top not in _WHEEL_FOLDERS and not top.endswith(".dist-info")) or _is_test(name):
            yield Finding("pyproject.toml", f"{wheel.name} contains {name}", "exclude it from the wheel")


def client_findings(tarball: Path) -> Iterator[Finding]:
    """The client package contains dist, its entry points, README, licence and package.json, and no test."""
    with tarfile.open(tarball) as archive:
        names = [name.removeprefix("package/") for name in archive.getnames()]
    for name in sorted({"package.json", "README.md", "LICENSE", "dist/index.js"} - set(names)):
        yield Finding("clients/js/package.json", f"{tarball.name} lacks {name}", "add it to `files`")
    for name in names:
        if (name not in _CLIENT_FILES and not name.startswith("dist/")) or _is_test(name):
            yield Finding("clients/js/package.json", f"{tarball.name} contains {name}", "remove it from `files`")


def _is_test(name: str) -> bool:
    path = PurePosixPath(name)
    in_test_folder = bool({"test", "tests"} & set(path.parts[:-1]))
    return in_test_folder or path.name.startswith(("test_", "conftest")) or ".test." in path.name

"""Versions and the changelog: every file names the version in app/__init__.py, and the changelog describes it."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from release.files import read_json, read_text
from release.findings import CheckFailed, Finding

VERSION_FILE = "app/__init__.py"
CHANGELOG = "CHANGELOG.md"
OPENAPI = ("openapi.json", "docs/openapi/user.json", "docs/openapi/operators.json")
CLIENT = "clients/js/package.json"
CLIENT_LOCK = "clients/js/package-lock.json"
UNRELEASED = "Unreleased"
_PRERELEASES = {"a": "alpha", "b": "beta", "rc": "rc"}


class Section(NamedTuple):
    """A `##` section of the changelog. `date` is the text after the version, without the hyphen."""

    title: str
    date: str
    body: str


def project_version(root: Path) -> str:
    """The version in app/__init__.py. Raises CheckFailed if there is none, or if it is not a version."""
    found = re.search(r'^__version__ = "([^"]+)"$', read_text(root, VERSION_FILE), re.MULTILINE)
    if found is None or re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc|\.dev)\d+)?", found[1]) is None:
        raise CheckFailed(VERSION_FILE, "no version such as 1.2.3 or 1.2.3rc1", "set __version__")
    return found[1]


def released_version(version: str) -> str:
    """The version that a development version becomes. A version without `.dev` is its own."""
    return Version(version).base_version if Version(version).is_devrelease else version


def npm_version(version: str) -> str:
    """The version to release, as npm writes it: 1.2.3rc1 becomes 1.2.3-rc.1, and 1.2.3.dev0 becomes 1.2.3."""
    parsed = Version(version)
    if parsed.pre is not None:
        return f"{parsed.base_version}-{_PRERELEASES[parsed.pre[0]]}.{parsed.pre[1]}"
    return parsed.base_version


def check_versions(root: Path, tag: str = "") -> Iterator[Finding]:
    """Compares all files with app/__init__.py, and with the tag if there is one."""
    version = project_version(root)
    if Version(version).is_devrelease:
        remedy = f"set __version__ to {released_version(version)}"
        yield Finding(VERSION_FILE, f"{version} is a development version", remedy, True)
    if tag and tag != f"v{version}":
        yield Finding(VERSION_FILE, f"the version is {version}, but the tag is {tag}", f"push the tag v{version}")
    for name in OPENAPI:
        documented = read_json(root, name, "info", "version")
        if documented != version:
            yield Finding(name, f"the version is {documented}, not {version}", "run `make openapi`")
    client, expected = read_json(root, CLIENT, "version"), npm_version(version)
    if client != expected:
        remedy = f"run `npm version {expected} --no-git-tag-version` in clients/js"
        yield Finding(CLIENT, f"the version is {client}, not {expected}", remedy, True)
    locked = [read_json(root, CLIENT_LOCK, *keys) for keys in (["version"], ["packages", "", "version"])]
    if locked != [client, client]:
        remedy = "run `npm install --package-lock-only` in clients/js"
        yield Finding(CLIENT_LOCK, f"the version differs from {client} in package.json", remedy)


def sections(changelog: str) -> list[Section]:
    """The `##` sections of the changelog, newest first, as in the file."""
    parts = re.split(r"^## +(.*)$", changelog, flags=re.MULTILINE)[1:]
    found = []
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        title, _, day = heading.partition(" - ")
        found.append(Section(title.strip().strip("[]"), day.strip(), body.strip()))
    return found


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _empty_headings(section: Section) -> list[str]:
    parts = re.split(r"^### +(.*)$", section.body, flags=re.MULTILINE)[1:]
    return [heading for heading, body in zip(parts[::2], parts[1::2], strict=True) if not body.strip()]


def check_changelog(root: Path) -> Iterator[Finding]:
    """No heading is empty, the newest version is the project's and has a date, and nothing is left under Unreleased."""
    version = project_version(root)
    found = sections(read_text(root, CHANGELOG))
    for section in found:
        if not section.body and section.title != UNRELEASED:
            yield Finding(CHANGELOG, f"[{section.title}] is empty", "describe the version, or delete the heading")
        for heading in _empty_headings(section):
            problem = f"{heading!r} in [{section.title}] is empty"
            yield Finding(CHANGELOG, problem, "add entries, or delete the heading")
    if any(section.title == UNRELEASED and section.body for section in found):
        remedy = f"move them to a section [{released_version(version)}] with a date"
        yield Finding(CHANGELOG, f"[{UNRELEASED}] has entries", remedy, True)
    released = [section for section in found if section.title != UNRELEASED]
    newest = released[0].title if released else "none"
    if newest != version:
        problem = f"the newest version is {newest}, not {version}"
        yield Finding(CHANGELOG, problem, f"add a section [{released_version(version)}]", True)
    for section in released:
        if not _is_date(section.date):
            problem = f"the date of [{section.title}] is {section.date!r}"
            yield Finding(CHANGELOG, problem, f"write ## [{section.title}] - YYYY-MM-DD")

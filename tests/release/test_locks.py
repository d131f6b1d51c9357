"""Reading lock files: versions, hashes and parents of each package, and failures of packages without them."""

import json
import re
from pathlib import Path

import pytest

from release.findings import CheckFailed
from release.locks import npm_packages, python_packages

ROOT = Path(__file__).parents[2]
HASH = "ab" * 32
SHA512 = "sha512-" + "A" * 86 + "=="


LOCK = "requirements/runtime.lock"


def python_lock(folder: Path, text: str) -> Path:
    (folder / "requirements").mkdir()
    (folder / LOCK).write_text(text)
    return folder


def npm_lock(folder: Path, **entries: dict[str, str]) -> Path:
    (folder / "package-lock.json").write_text(json.dumps({"packages": {"": {"version": "1.0.0"}, **entries}}))
    return folder


def test_package_has_version_hashes_marker_and_parents(tmp_path: Path) -> None:
    text = (
        "# Written by a tool.\n"
        f"one[extra]==1.0 ; python_version < '3.12' \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{'cd' * 32}\n"
        "    # via\n    #   -r runtime.in\n    #   two\n"
        f"two==2.0 \\\n    --hash=sha256:{HASH}\n    # via viaduct\n"
    )

    one, two = python_packages(python_lock(tmp_path, text), LOCK)

    assert (one.name, one.version, one.hashes) == ("one", "1.0", (HASH, "cd" * 32))
    assert one.marker == 'python_version < "3.12"'
    assert one.required_by == ("-r runtime.in", "two")
    assert two.required_by == ("viaduct",)


@pytest.mark.parametrize(
    "entry",
    [
        "one==1.0\n",
        f"one>=1.0 \\\n    --hash=sha256:{HASH}\n",
        f"one \\\n    --hash=sha256:{HASH}\n",
        "one==1.0 \\\n    --hash=md5:00\n",
        f"one @ https://example.com/one.whl \\\n    --hash=sha256:{HASH}\n",
    ],
)
def test_package_without_pinned_version_and_hash_stops_the_check(tmp_path: Path, entry: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        python_packages(python_lock(tmp_path, entry), LOCK)

    assert str(caught.value.finding) == (
        "requirements/runtime.lock: one has no pinned version with a hash; run `make lock`"
    )


def test_empty_lock_stops_the_check(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="contains no package"):
        python_packages(python_lock(tmp_path, "# Nothing.\n"), LOCK)


@pytest.mark.parametrize("name", ["runtime", "tracing"])
def test_every_pin_of_the_lock_is_read(name: str) -> None:
    text = (ROOT / f"requirements/{name}.lock").read_text()
    packages = python_packages(ROOT, f"requirements/{name}.lock")

    assert len(packages) == len(re.findall(r"^[a-z0-9][^ \n]*==", text, re.MULTILINE))
    assert sum(len(package.hashes) for package in packages) == text.count("--hash=sha256:")
    assert all(package.required_by for package in packages)


def test_npm_package_has_the_name_behind_its_alias(tmp_path: Path) -> None:
    entry = {"name": "@scope/real", "version": "1.0.0", "integrity": SHA512, "license": "MIT"}
    (package,) = npm_packages(npm_lock(tmp_path, **{"node_modules/alias": entry}), "package-lock.json")

    assert (package.name, package.hashes, package.license) == ("@scope/real", ("00" * 64,), "MIT")
    assert package.url == "pkg:npm/%40scope/real@1.0.0"


def test_npm_package_that_is_installed_twice_is_listed_once(tmp_path: Path) -> None:
    entry = {"version": "1.0.0", "integrity": SHA512}
    nested = {"node_modules/one": entry, "node_modules/two/node_modules/one": entry}

    assert [str(package) for package in npm_packages(npm_lock(tmp_path, **nested), "package-lock.json")] == [
        "one==1.0.0"
    ]


@pytest.mark.parametrize("integrity", [None, "", "sha1-AAAA", "sha512-?"])
def test_npm_package_without_hash_stops_the_check(tmp_path: Path, integrity: str | None) -> None:
    entry = {"version": "1.0.0"} | ({} if integrity is None else {"integrity": integrity})

    with pytest.raises(CheckFailed, match="one has no SHA-512 hash"):
        npm_packages(npm_lock(tmp_path, **{"node_modules/one": entry}), "package-lock.json")

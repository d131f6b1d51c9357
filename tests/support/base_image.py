"""An archive with Debian's or Ubuntu's Python, which replaces the official Python image in tests."""

import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")

OFFICIAL_FILES = ("bin/pip3", "lib/python3.11/ensurepip/__init__.py", "lib/python3.11/site-packages/pip/__init__.py")
"""Files below /usr/local in the official image. The Dockerfile must delete them, like those of the packages."""


class PackageSource(NamedTuple):
    """Where this machine gets the packages of its distribution."""

    codename: str
    mirror: str
    components: tuple[str, ...]


def package_source(targets: str, codename: str) -> PackageSource:
    """The source of a release in the output of `apt-get indextargets`, with lines such as `URL bookworm main`."""
    found = [line.split() for line in targets.splitlines()]
    usable = [(site, component) for site, release, component in found if release == codename]
    assert usable, f"apt has no source for {codename}; run apt-get update"
    mirror = usable[0][0]
    if mirror.startswith("mirror+file:"):
        mirror = Path(mirror.removeprefix("mirror+file:")).read_text().split()[0]
    return PackageSource(codename, mirror, tuple(dict.fromkeys(component for _, component in usable)))


def this_machine() -> PackageSource:
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    columns = "$(SITE) $(RELEASE) $(COMPONENT)"
    listing = ["apt-get", "indextargets", "--format", columns, "Identifier: Packages"]
    return package_source(subprocess.run(listing, capture_output=True, text=True, check=True).stdout, codename)


INSTALL = """
set -e
mount -t tmpfs dialtone-base "$1"
debootstrap --variant=minbase --include="$2" --components="$3" "$4" "$1/root" "$5"
cd "$1/root"
rm -rf var/cache/apt var/lib/apt/lists
ln -s /usr/bin/python3 usr/local/bin/python
for file in $6; do
  mkdir -p "usr/local/$(dirname "$file")"
  touch "usr/local/$file"
done
tar -cf "$7" .
"""
"""Arguments: an empty folder, packages, components, release, mirror, files below /usr/local, the archive."""


def base_archive(cache: Path) -> Path:
    """The archive in the cache. Makes it first if it is missing, which takes minutes and needs root."""
    source = this_machine()
    archive = cache / f"image-base-{source.codename}-{platform.machine()}.tar"
    if archive.exists():
        return archive
    cache.mkdir(exist_ok=True)
    unfinished = archive.with_suffix(".unfinished")
    with tempfile.TemporaryDirectory(prefix="dialtone-base-") as folder:
        # In memory, because dpkg synchronizes each file; and in a mount namespace, which ends with the script.
        ended = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALL, "sh", folder),
                *(",".join(PACKAGES), ",".join(source.components), source.codename, source.mirror),
                *(" ".join(OFFICIAL_FILES), unfinished),
            ],
            env=os.environ | _proxy_of_apt(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr
    unfinished.rename(archive)
    return archive


def _proxy_of_apt() -> dict[str, str]:
    """The proxy of apt's configuration, which debootstrap does not read."""
    shell = ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"]
    found = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    return {"http_proxy": found.partition("=")[2].strip().strip("'")} if found else {}

"""Images that podman builds and runs in its own storage. At the end, no container, mount, process or image remains."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.base_image import base_archive

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "localhost/python-of-this-distribution:latest"
LIMITS = ("--ulimit", "nofile=8192:8192", "--ulimit", "nproc=1024:1024")
"""Podman's defaults may be higher than the limits of the machine, which root cannot raise without CAP_SYS_RESOURCE."""

RUN = ("run", "--rm", *LIMITS, "--no-healthcheck")
"""Podman runs health checks with systemd, which a test machine may not have."""

LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")  # noqa: S108
"""The restrictions of deploy/kubernetes/dialtone.yaml."""

CA_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""This machine's CA certificates, which the package index may need."""


def missing() -> str:
    """Why this machine cannot build an image, or an empty string."""
    if os.geteuid() != 0:
        return "needs root"
    tools = [tool for tool in ("podman", "runc", "debootstrap") if shutil.which(tool) is None]
    return f"not installed: {', '.join(tools)}" if tools else ""


needs_podman = pytest.mark.skipif(bool(missing()) and not os.environ.get("REQUIRE_ALL"), reason=missing() or "complete")


class Podman:
    """Podman with its storage in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._options = (
            *("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp"),  # noqa: S108
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"),
        )

    def command(self, *arguments: str) -> list[str]:
        return ["podman", *self._options, *arguments]

    def run(self, *arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
        )

    def output(self, *arguments: str, seconds: float = 180) -> str:
        """The output of a command that succeeds."""
        ended = self.run(*arguments, seconds=seconds)
        assert ended.returncode == 0, f"podman {arguments[0]}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        return ended.stdout

    def build(self, target: str, arguments: Mapping[str, str]) -> str:
        """Build a target of the Dockerfile, and return the name of the image."""
        image = f"localhost/dialtone:{target or 'default'}"
        given = {"BASE_IMAGE": BASE_IMAGE} | _pip_settings() | dict(arguments)
        certificates = [path for path in {CA_CERTIFICATES, given.get("PIP_CERT", "")} if Path(path).is_file()]
        self.output(
            *("build", "--format", "docker", "--layers", "--network", "host", *LIMITS, "--tag", image),
            *(("--target", target) if target else ()),
            *(part for path in certificates for part in ("--volume", f"{path}:{path}:ro")),
            *(part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")),
            str(ROOT),
            seconds=900,
        )
        return image

    def config(self, image: str) -> dict[str, Any]:
        """The image's configuration: labels, user, entry point, environment, health check."""
        (found,) = json.loads(self.output("image", "inspect", image))
        return dict(found["Config"]) | {"Healthcheck": found.get("Healthcheck"), "Size": found["Size"]}

    def container(
        self, name: str, image: str, *arguments: str, options: Sequence[str] = (), network: str = "host"
    ) -> list[str]:
        """The command that runs a locked container. Its exit status is that of the container."""
        return self.command(*RUN, "--name", name, "--network", network, *LOCKED, *options, image, *arguments)

    def inside(self, image: str, program: str, *arguments: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run another program in a container with a writable root file system and without a network."""
        options = ("--network", "none", "--entrypoint", program, *(("--user", user) if user else ()))
        return self.run(*RUN, *options, image, *arguments)


def _pip_settings() -> dict[str, str]:
    """The caller's package index, as build arguments of the Dockerfile."""
    return {name: value for name in ("PIP_INDEX_URL", "PIP_CERT") if (value := os.environ.get(name))}


def option_of(settings: Mapping[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]


@contextmanager
def podman_storage() -> Iterator[Podman]:
    """Podman with the base image in an empty storage."""
    assert not missing(), missing()
    archive = base_archive(ROOT / ".cache")
    # Podman rejects a `--runroot` of more than 50 characters.
    folder = Path(tempfile.mkdtemp(prefix="dialtone-image-", dir="/tmp"))
    podman = Podman(folder)
    try:
        podman.output("import", "--quiet", str(archive), BASE_IMAGE, seconds=300)
        yield podman
    finally:
        podman.run("rm", "--all", "--force", "--time", "0")
        _unmount_below(folder)
        shutil.rmtree(folder)
        _remove_control_groups()


def mounts_below(folder: Path) -> list[str]:
    """Mount points in the folder, the last one first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def processes_with(folder: Path) -> list[str]:
    """Commands of running processes that name the folder, such as podman's monitor of a container."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [command for command in listed.splitlines() if str(folder) in command]


def _unmount_below(folder: Path) -> None:
    """Unmount what podman mounted. A monitor that is still running cleans up after its container, and mounts again."""
    deadline = time.monotonic() + 60
    while (processes := processes_with(folder)) or mounts_below(folder):
        assert time.monotonic() < deadline, (processes, mounts_below(folder))
        for point in [] if processes else mounts_below(folder):
            subprocess.run(["umount", point], capture_output=True, check=False)
        time.sleep(0.1)


def _remove_control_groups() -> None:
    """Remove podman's control groups, unless another podman on this machine uses them."""
    for parent in Path("/sys/fs/cgroup").glob("**/libpod_parent"):
        for group in (*parent.glob("*/"), parent):
            with suppress(OSError):
                group.rmdir()

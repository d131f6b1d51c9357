"""The images of the Dockerfile: contents, user, labels; and a login from a container that is then stopped."""

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from app import __version__
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from tests.support.containers import (
    BASE_IMAGE,
    RUN,
    Podman,
    mounts_below,
    needs_podman,
    option_of,
    podman_storage,
    processes_with,
)
from tests.support.http_server import free_port, http_client
from tests.support.outages import readiness
from tests.support.replicas import ROOT, replica_variables, wait_until_ready
from tests.support.sandbox import Telnyx
from tests.support.tokens import pem, token
from tests.support.waiting import eventually

pytestmark = [needs_podman, pytest.mark.timeout(1200)]

REVISION = "0123456789abcdef0123456789abcdef01234567"
DRAIN_SECONDS, SHUTDOWN_SECONDS = 6, 30
VOLUME = ("--volume", "ledger:/var/lib/dialtone")
SQLITE = "sqlite:////var/lib/dialtone/ledger.db"
IMAGES = ("service", "development")
MANIFEST = ROOT / "deploy/kubernetes/dialtone.yaml"


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with podman_storage() as podman:
        for target in IMAGES:
            began = time.monotonic()
            image = podman.build(target, {"VERSION": __version__, "REVISION": REVISION})
            size = podman.config(image)["Size"] / 1e6
            print(f"\n{image}: built in {time.monotonic() - began:.0f} s, {size:.0f} MB", end="")
        yield podman


def image_of(target: str) -> str:
    return f"localhost/dialtone:{target}"


def test_default_target_is_the_service(podman: Podman) -> None:
    default = podman.build("", {"VERSION": __version__, "REVISION": REVISION})

    assert podman.output("image", "inspect", "--format", "{{.Id}}", default) == podman.output(
        "image", "inspect", "--format", "{{.Id}}", image_of("service")
    )


@pytest.mark.parametrize("target", IMAGES)
def test_labels_name_the_version_the_commit_and_the_licence(podman: Podman, target: str) -> None:
    labels = podman.config(image_of(target))["Labels"]

    assert {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()} == {
        "title": "Dialtone",
        "description": "Exchanges a signed-in user's access token for a short-lived Telnyx WebRTC login",
        "licenses": "Apache-2.0",
        "version": __version__,
        "revision": REVISION,
    } | {name: value for name, value in labels.items() if name.startswith("io.buildah")}


@pytest.mark.parametrize("target", IMAGES)
def test_process_has_its_own_user_and_group(podman: Podman, target: str) -> None:
    printed = podman.inside(image_of(target), "id").stdout

    assert printed == "uid=10001(dialtone) gid=10001(dialtone) groups=10001(dialtone)\n"


@pytest.mark.parametrize("target", IMAGES)
def test_user_can_write_only_the_ledgers_folder_and_temporary_folders(podman: Podman, target: str) -> None:
    found = podman.inside(image_of(target), "find", "/", "-xdev", "-writable", "!", "-type", "l").stdout.split()

    assert set(found) <= {"/var/lib/dialtone", "/tmp", "/var/tmp", "/run/lock"}  # noqa: S108
    assert "/var/lib/dialtone" in found


@pytest.mark.parametrize("target", IMAGES)
def test_image_has_no_installer_no_compiler_and_no_package_cache(podman: Podman, target: str) -> None:
    found = podman.inside(image_of(target), "find", "/", "-xdev", "-type", "f", user="0").stdout.splitlines()
    unwanted = re.compile(
        r"/(pip|ensurepip|setuptools|pkg_resources|hatchling|python-wheels|wheel)/"
        r"|/bin/(pip[\d.]*|easy_install|g?cc|g\+\+|c\+\+|ld|as|make|[a-z0-9_]+-linux-gnu-gcc.*)$"
        r"|/var/cache/apt/|/var/lib/apt/lists/|\.(whl|deb)$|/root/\.cache/|^/build/"
    )

    assert len(found) > 1000
    assert [path for path in found if unwanted.search(path)] == []


@pytest.mark.parametrize("target", IMAGES)
def test_no_program_gains_privileges(podman: Podman, target: str) -> None:
    found = podman.inside(image_of(target), "find", "/", "-xdev", "-type", "f", "-perm", "/6000", user="0")

    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("module", ["app.sandbox", "pip", "ensurepip", "setuptools", "hatchling"])
def test_service_image_has_no_sandbox_and_no_installer(podman: Podman, module: str) -> None:
    ended = podman.inside(image_of("service"), "python", "-c", f"import {module}")

    assert ended.returncode == 1
    assert f"No module named '{module}'" in ended.stderr


def test_development_image_has_the_sandbox(podman: Podman) -> None:
    assert podman.inside(image_of("development"), "python", "-c", "import app.sandbox.stack").returncode == 0


def test_packages_of_the_image_are_consistent(podman: Podman) -> None:
    """Each file that a package lists exists. The sandbox is not removed from an installed package."""
    program = (
        "import importlib.metadata as m, sys; files = [f for d in m.distributions() for f in d.files or ()];"
        "sys.exit(' '.join(str(f) for f in files if not f.locate().exists()) or len(files) < 1000)"
    )
    ended = podman.inside(image_of("service"), "python", "-c", program)

    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("target", IMAGES)
def test_command_prints_the_version(podman: Podman, target: str) -> None:
    printed = podman.output(*RUN, "--network", "none", image_of(target), "--version")

    assert printed == f"dialtone {__version__}\n"


@asynccontextmanager
async def container(
    podman: Podman,
    folder: Path,
    arguments: Sequence[str],
    *,
    target: str = "service",
    options: Sequence[str] = (),
    network: str = "host",
    settings: Mapping[str, str],
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Run a container named after its last argument. Kills it at the end, if it runs."""
    name = arguments[-1]
    options = (*options, *option_of(settings))
    command = podman.container(name, image_of(target), *arguments, options=options, network=network)
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        await asyncio.to_thread(podman.run, "rm", "--force", "--time", "0", name)
        process.wait(60)


@asynccontextmanager
async def served(
    podman: Podman, folder: Path, settings: Mapping[str, str], options: Sequence[str] = VOLUME
) -> AsyncIterator[tuple["subprocess.Popen[bytes]", httpx.AsyncClient]]:
    """Migrate, and run the service until it is ready."""
    port = free_port()
    settings = {**settings, "DIALTONE_PORT": str(port)}
    migrate = podman.container("migrate", image_of("service"), "migrate", options=(*options, *option_of(settings)))
    migrated = await asyncio.to_thread(subprocess.run, migrate, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr
    async with (
        container(podman, folder, ["serve"], options=options, settings=settings) as process,
        http_client(f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        await wait_until_ready(client, process, folder / "serve.log")
        yield process, client


def settings_of(telnyx: Telnyx, **settings: str) -> dict[str, str]:
    stop = {
        "DIALTONE_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "DIALTONE_SHUTDOWN_TIMEOUT_SECONDS": str(SHUTDOWN_SECONDS),
    }
    return replica_variables(telnyx.url, SQLITE) | stop | settings


async def log_in(client: httpx.AsyncClient, device: str, access_token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {access_token or token()}"}
    return await client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def test_service_with_a_read_only_root_finishes_logins_after_sigterm(
    podman: Podman, telnyx: Telnyx, tmp_path: Path
) -> None:
    patient = {"TELNYX_CALL_SECONDS": "20", "DIALTONE_REQUEST_TIMEOUT_SECONDS": "30"}
    async with served(podman, tmp_path, settings_of(telnyx, **patient)) as (process, client):
        first = await log_in(client, "laptop")
        telnyx.fail("delay", method="POST", path="telephony_credentials$", seconds=DRAIN_SECONDS + 2)
        asking = asyncio.create_task(log_in(client, "tablet"))
        await eventually(lambda: len(telnyx.calls("POST", "telephony_credentials")) > 1)
        began = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(podman.output, "stop", "--time", "50", "serve"))
        await readiness(client, 503)
        draining = await client.get("/readyz")
        second = await asking
        await stopping
        status = await asyncio.to_thread(process.wait, 60)
        took = time.monotonic() - began

    print(f"\nstopped in {took:.1f} s", end="")
    assert (first.status_code, second.status_code) == (201, 201)
    assert draining.json()["status"] == "draining"
    assert status == 0
    assert DRAIN_SECONDS <= took < DRAIN_SECONDS + SHUTDOWN_SECONDS


async def test_health_check_of_the_image_follows_the_service(podman: Podman, telnyx: Telnyx, tmp_path: Path) -> None:
    kind, *command = podman.config(image_of("service"))["Healthcheck"]["Test"]
    async with served(podman, tmp_path, settings_of(telnyx, HTTP_PROXY="http://127.0.0.1:9")):
        while_live = await asyncio.to_thread(podman.run, "exec", "serve", *command)
    without_service = podman.inside(image_of("service"), *command)

    assert kind == "CMD"
    assert while_live.returncode == 0, while_live.stderr
    assert without_service.returncode == 1


GET = (
    "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=5);"
    "c.request('GET', sys.argv[2]); print(c.getresponse().status)"
)


async def test_pod_of_the_kubernetes_manifest_migrates_and_becomes_ready(podman: Podman, tmp_path: Path) -> None:
    """With the settings, secret files, arguments, memory limit and probes of the manifest. SQLite, and no network."""
    objects = {found["kind"]: found for found in yaml.safe_load_all(MANIFEST.read_text())}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (migrate,), (serve,) = pod["initContainers"], pod["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in serve["ports"]}
    secrets = {"telnyx-api-key": DEMO_KEY, "database-url": SQLITE, "tag-key": "k" * 32}
    settings = objects["ConfigMap"]["data"] | {"DIALTONE_ISSUER_PEM": pem()}
    limit = serve["resources"]["limits"]["memory"].removesuffix("Mi") + "m"
    options = (*VOLUME, *secret_files(tmp_path / "secrets", secrets), "--memory", limit, *option_of(settings))

    async def probe(kind: str) -> str:
        wanted = serve[kind]["httpGet"]
        command = ("exec", *serve["args"], "python", "-c", GET, ports[wanted["port"]], wanted["path"])
        return (await asyncio.to_thread(podman.run, *command)).stdout.strip()

    migrating = podman.container("migrate", image_of("service"), *migrate["args"], options=options, network="none")
    migrated = await asyncio.to_thread(subprocess.run, migrating, capture_output=True, text=True, check=False)
    async with container(podman, tmp_path, serve["args"], options=options, network="none", settings={}) as process:
        deadline = time.monotonic() + 90
        while (ready := await probe("readinessProbe")) != "200" and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "serve.log").read_text()
        live = [await probe(kind) for kind in ("startupProbe", "livenessProbe")]

    assert migrated.returncode == 0, migrated.stderr
    assert (ready, live) == ("200", ["200", "200"])


def secret_files(folder: Path, values: Mapping[str, str]) -> tuple[str, ...]:
    """The option that mounts files as Kubernetes does for `defaultMode: 0440` and `fsGroup: 10001`."""
    folder.mkdir()
    for name, value in values.items():
        (folder / name).write_text(value + "\n")
        (folder / name).chmod(0o440)
        os.chown(folder / name, 0, 10001)
    return ("--volume", f"{folder}:/run/secrets/dialtone:ro")


async def test_demo_runs_with_the_sandbox_of_the_development_image(podman: Podman, tmp_path: Path) -> None:
    telnyx_port, identity_port = free_port(), free_port()
    settings = {
        "TELNYX_BASE_URL": f"http://127.0.0.1:{telnyx_port}/v2",
        "TELNYX_API_KEY": DEMO_KEY,
        "TELNYX_CONNECTION_ID": DEMO_CONNECTION,
        "DIALTONE_ISSUER": f"http://127.0.0.1:{identity_port}",
        "DIALTONE_AUDIENCE": "dialtone",
        "DIALTONE_DATABASE_URL": SQLITE,
        "DIALTONE_SANDBOX_PORT": str(telnyx_port),
        "DIALTONE_IDENTITY_PORT": str(identity_port),
    }
    async with (
        container(podman, tmp_path, ["sandbox", "telnyx"], target="development", settings=settings),
        container(podman, tmp_path, ["sandbox", "identity"], target="development", settings=settings),
        served(podman, tmp_path, settings) as (_, client),
    ):
        await eventually(lambda: is_open(telnyx_port), 60)
        printed = await asyncio.to_thread(podman.output, "exec", "identity", "dialtone", "sandbox", "token", "alice")
        login = await log_in(client, "phone", printed.strip())

    assert login.status_code == 201


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_failure_leaves_no_container_mount_process_or_file() -> None:
    found: list[Podman] = []

    def fail() -> None:
        with podman_storage() as podman:
            found.append(podman)
            podman.output(*RUN, "--detach", "--network", "none", BASE_IMAGE, "sleep", "300")
            assert mounts_below(podman.folder)
            assert processes_with(podman.folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    folder = found[0].folder
    assert (mounts_below(folder), processes_with(folder), folder.exists()) == ([], [], False)

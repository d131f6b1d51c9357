"""Deployment manifests are valid, use existing settings, drop privileges, and allow enough time for a graceful stop."""

import configparser
import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app import __version__
from app.config.settings import Settings, known_variables

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
USER = 10001
KNOWN = known_variables()
SECRETS = ("telnyx-api-key", "database-url", "tag-key")

KUBERNETES = ("1.31", "1.34", "1.37")
"""Versions whose published schemas the manifests satisfy. The newest is that of kubernetes-validate."""


def all_documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "dialtone.yaml").read_text()))


def documents() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects, by kind."""
    return {found["kind"]: found for found in all_documents()}


def settings_in(text: str) -> set[str]:
    return set(re.findall(r"\b((?:DIALTONE|TELNYX)_[A-Z_]+)\b", text))


@pytest.mark.parametrize(
    "file",
    [
        "deploy/kubernetes/dialtone.yaml",
        "deploy/systemd/dialtone.service",
        "deploy/nginx/dialtone.conf",
        "docs/cli.md",
        "docs/configuration.md",
        "docs/container.md",
        "docs/observability.md",
        "docs/operations.md",
        "docs/policy.md",
        "docs/runbook.md",
        "docs/upgrading.md",
        "docs/threat-model.md",
    ],
)
def test_every_named_setting_exists(file: str) -> None:
    named = {name.rstrip("_") for name in settings_in((ROOT / file).read_text())}

    assert named - KNOWN - {"DIALTONE_ENV"} == set(), "DIALTONE_ENV is a variable of docker-compose.yml"


def test_configuration_page_has_every_setting() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()

    assert KNOWN - settings_in(text) == set()


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("found", all_documents(), ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_kubernetes_object_satisfies_the_schema(found: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (["spec"], "replica", 2),
        (["spec"], "replicas", "two"),
        (["spec", "template", "spec"], "terminationGracePeriod", 45),
        (["spec", "template", "spec", "securityContext"], "runAsNonroot", True),
        (["spec", "template", "spec", "containers", 0, "securityContext"], "readOnlyRootFileSystem", True),
        (["spec", "template", "spec", "containers", 0, "readinessProbe"], "failureTreshold", 2),
        (["spec", "template", "spec", "containers", 0, "resources", "limits"], "memory", ["512Mi"]),
    ],
)
def test_misspelt_field_or_wrong_type_violates_the_schema(place: list[str | int], name: str, value: Any) -> None:
    deployment = copy.deepcopy(documents()["Deployment"])
    target: Any = deployment
    for key in place:
        target = target[key]
    target[name] = value

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


def test_kubernetes_pods_have_no_privileges() -> None:
    pod = documents()["Deployment"]["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod["initContainers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"] == f"dialtone:{__version__}"


def test_kubernetes_secrets_are_files_that_only_the_group_of_the_pods_can_read() -> None:
    pod = documents()["Deployment"]["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]

    assert volume["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] == USER
    for container in pod["containers"] + pod["initContainers"]:
        assert "env" not in container
        assert {"name": volume["name"], "mountPath": "/run/secrets/dialtone", "readOnly": True} in container[
            "volumeMounts"
        ]


def test_kubernetes_containers_have_requests_and_a_memory_limit() -> None:
    pod = documents()["Deployment"]["spec"]["template"]["spec"]

    for container in pod["containers"] + pod["initContainers"]:
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit delays requests in bursts"


def test_kubernetes_keeps_a_replica_and_spreads_replicas_over_nodes_and_zones() -> None:
    objects = documents()
    pod = objects["Deployment"]["spec"]["template"]
    selected = {"matchLabels": pod["metadata"]["labels"]}

    assert objects["PodDisruptionBudget"]["spec"]["minAvailable"] < objects["Deployment"]["spec"]["replicas"]
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == selected
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == selected
    assert objects["Service"]["spec"]["selector"] == selected["matchLabels"]
    assert [(each["topologyKey"], each["labelSelector"]) for each in pod["spec"]["topologySpreadConstraints"]] == [
        ("kubernetes.io/hostname", selected),
        ("topology.kubernetes.io/zone", selected),
    ]


def test_kubernetes_probes_use_livez_and_readyz() -> None:
    (container,) = documents()["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["lifecycle"]["preStop"]


def test_stop_timeouts_exceed_drain_and_shutdown_timeouts() -> None:
    objects = documents()
    config = objects["ConfigMap"]["data"]
    ends_within = float(config["DIALTONE_DRAIN_SECONDS"]) + float(config["DIALTONE_SHUTDOWN_TIMEOUT_SECONDS"])

    assert objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > ends_within
    assert float(unit()["Service"]["TimeoutStopSec"]) > 20


def test_kubernetes_settings_are_valid_together_with_those_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        (tmp_path / name).write_text("postgresql://u:p@db/dialtone" if name == "database-url" else "KEY_made_up")
    for name, value in (settings_of_image() | documents()["ConfigMap"]["data"]).items():
        monkeypatch.setenv(name, value.replace("/run/secrets/dialtone", str(tmp_path)))
    monkeypatch.setenv("DIALTONE_ENV_FILE", "")

    assert Settings.load().namespace == "dialtone"


def settings_of_image() -> dict[str, str]:
    return dict(re.findall(r"^(?:ENV|   ) ((?:DIALTONE|TELNYX)_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))


def test_image_sets_no_secret() -> None:
    assert settings_of_image() == {"DIALTONE_HOST": "0.0.0.0"}  # noqa: S104 - a container has its own network
    assert re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]


def test_compose_runs_the_sandbox_from_the_development_image_and_the_rest_from_the_service_image() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    images = {name: (found["build"], found["image"]) for name, found in services.items() if "build" in found}

    service = (".", f"dialtone:{__version__}")
    development = ({"context": ".", "target": "development"}, f"dialtone-development:{__version__}")
    assert images == {
        "migrate": service,
        "dialtone": service,
        "sandbox-telnyx": development,
        "sandbox-identity": development,
    }


def unit() -> configparser.RawConfigParser:
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(DEPLOY / "systemd" / "dialtone.service")
    return found


def test_systemd_unit_migrates_serves_reloads_and_is_sandboxed() -> None:
    service = unit()["Service"]

    assert service["ExecStartPre"].endswith("dialtone migrate")
    assert service["ExecStart"].endswith("dialtone serve")
    assert "HUP" in service["ExecReload"]
    for promise in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"):
        assert service[promise] == "yes"
    assert service["ProtectSystem"] == "strict"

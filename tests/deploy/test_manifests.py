"""Deployment manifests use existing settings, drop privileges, and allow enough time for a graceful stop."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__
from app.config.settings import Settings, known_variables

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KNOWN = known_variables()


def documents() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects, by kind."""
    text = (DEPLOY / "kubernetes" / "dialtone.yaml").read_text()
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


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


def test_kubernetes_pods_have_no_privileges() -> None:
    pod = documents()["Deployment"]["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod["initContainers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"] == f"dialtone:{__version__}"


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


def test_kubernetes_settings_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = documents()["ConfigMap"]["data"]
    for name in ("telnyx-api-key", "database-url", "tag-key"):
        (tmp_path / name).write_text("postgresql://u:p@db/dialtone" if name == "database-url" else "KEY_made_up")
    for name, value in config.items():
        monkeypatch.setenv(name, value.replace("/run/secrets/dialtone", str(tmp_path)))
    monkeypatch.setenv("DIALTONE_ENV_FILE", "")

    assert Settings.load().namespace == "dialtone"


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

"""Alert rules, dashboard and runbook match the metrics of a running service; promtool tests the rules."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.api.problems import all_kinds
from tests.support.http_server import free_port
from tests.support.push_material import android, same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.shared_logins import sharing
from tests.support.tokens import token
from tests.support.webhooks import Receiver, configure_endpoints

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dialtone.json"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
NOT_OURS = {"up", "ALERTS"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    own = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return own + [note["expr"] for note in board["annotations"]["list"]]


def names_in(expression: str) -> set[str]:
    """Every series that an expression queries."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without)\s*\([^)]*\)", "", expression)
    return {
        name for name in re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\w|\s*\()", bare) if "_" in name or name in NOT_OURS
    }


def labels_in(expression: str) -> dict[str, set[str]]:
    """The labels that an expression selects by, for each series."""
    found: dict[str, set[str]] = {}
    for name, chosen in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=|!)", chosen))
    return found


@pytest.fixture
async def scraped(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[str]:
    """The output of /metrics after each kind of event happened."""
    settings = {"warm_pool_size": 1} | sharing(f"redis://127.0.0.1:{free_port()}/0")
    settings |= configure_endpoints(tmp_path, {"backend": Receiver(url=f"https://localhost:{free_port()}/")})
    async with running_service(telnyx, sqlite, **settings) as service:
        await service.components.upkeep.warm_pool.refill()
        await service.issue("laptop")
        await service.issue("laptop")
        await service.client.get("/v1/telephony-credentials", headers={"Authorization": "Bearer rubbish"})
        headers = {"Authorization": f"Bearer {token()}"}
        await service.client.post("/v1/push-credentials", headers=headers, json=same_ios())
        await service.client.post("/v1/push-credentials", headers=headers, json=android())
        for look in (
            service.components.push.expiry_alerts.check,
            service.components.operators.leases.refresh_counts,
            service.components.upkeep.sweeper.sweep,
            service.components.telnyx.outbound_guard.check,
        ):
            await look()
        yield (await service.client.get("/metrics")).text


def series_of(text: str) -> dict[str, set[str]]:
    """Each series with its labels."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#") and (match := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line)):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


async def test_every_queried_series_exists_with_its_labels(scraped: str) -> None:
    there = series_of(scraped)
    missing = []
    for expression in [rule["expr"] for rule in rules()] + dashboard_expressions():
        missing += [name for name in names_in(expression) - NOT_OURS if name not in there]
        for name, labels in labels_in(expression).items():
            if name not in NOT_OURS and not labels <= there.get(name, set()):
                missing.append(f"{name}{labels}")

    # Telnyx's limit appears after the first response with its headers; an issuer with a PEM has no key age.
    assert set(missing) <= {"dialtone_key_set_age_seconds"}
    assert len(there) > 25


def test_missing_series_are_detected() -> None:
    assert names_in('sum by (le) (rate(dialtone_x_bucket{source!="cached"}[5m])) / max(up{job="a"})') == {
        "dialtone_x_bucket",
        "up",
    }
    assert labels_in('rate(dialtone_x{a="1", b=~"2|3"}[5m])') == {"dialtone_x": {"a", "b"}}


async def test_label_values_are_bounded(service: Service) -> None:
    for number in range(30):
        await service.client.request(f"VERB{number}", f"/nowhere/{number}")
        await service.issue(f"device-{number}", user=f"user-{number}")
        await service.ask("GET", f"/{number:032x}")

    text = (await service.client.get("/metrics")).text

    assert "user-1" not in text
    assert "device-1" not in text
    assert len([line for line in text.splitlines() if line.startswith("dialtone_http_requests_total")]) < 8


def test_every_alert_is_in_the_runbook() -> None:
    headings = {line.removeprefix("### ").strip() for line in RUNBOOK.splitlines() if line.startswith("### ")}
    for rule in rules():
        assert rule["alert"] in headings
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_error_code_is_in_the_runbook() -> None:
    trouble = [kind.code for kind in all_kinds().values() if kind.status >= 500 or kind.status in (401, 403, 429)]

    assert [code for code in trouble if f"`{code}`" not in RUNBOOK and code != "missing_token"] == []


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        assert not os.environ.get("REQUIRE_ALL"), "promtool is required in CI"
        pytest.skip("promtool is not installed (Debian package: prometheus)")
    return subprocess.run(["promtool", *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules() -> None:
    checked = promtool("check", "rules", "alerts.yml")

    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def test_alerts_fire_only_under_their_conditions() -> None:
    tested = promtool("test", "rules", "alerts_test.yml")

    assert tested.returncode == 0, tested.stderr


def test_changed_rules_fail_their_tests(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text().replace("for: 2m", "for: 0m"))
    shutil.copy(ALERTS.parent / "alerts_test.yml", tmp_path)

    tested = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))

    assert tested.returncode != 0

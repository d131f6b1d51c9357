"""Redocly and Spectral report nothing about the OpenAPI documents with their recommended rules."""

import json
from pathlib import Path

import pytest

from tests.contract.tools import DOCUMENTS, HERE, needs_node, run

pytestmark = [needs_node, pytest.mark.timeout(600)]


async def test_redocly_reports_nothing() -> None:
    status, output = await run("redocly", "lint", "--config", HERE / "redocly.yaml", "--format", "json", *DOCUMENTS)

    assert status == 0, output
    assert output.count('"problems": []') == len(DOCUMENTS), output


async def test_spectral_reports_nothing() -> None:
    status, output = await run(
        *("spectral", "lint", "--ruleset", HERE / "spectral.yaml"),
        *("--fail-severity", "hint", "--format", "json", "--quiet", *DOCUMENTS),
    )

    assert status == 0, output
    assert json.loads(output) == []


async def test_linters_report_a_broken_document(tmp_path: Path) -> None:
    """A linter that reports nothing about anything would pass the other tests."""
    broken = json.loads(DOCUMENTS[0].read_text())
    del broken["paths"]["/livez"]["get"]["operationId"]
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(broken))

    _, redocly = await run("redocly", "lint", "--config", HERE / "redocly.yaml", document)
    status, spectral = await run(
        *("spectral", "lint", "--ruleset", HERE / "spectral.yaml", "--fail-severity", "hint", document)
    )

    assert "operation-operationId" in redocly
    assert status != 0
    assert "operation-operationId" in spectral

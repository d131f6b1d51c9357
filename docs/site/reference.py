"""Generates the reference pages of the documentation site from the code.

Run `python docs/site/reference.py FOLDER`. It writes these pages:

- settings.md from `.env.example`, which a test compares with the settings in the code
- configuration-file.md from the JSON Schema of dialtone.toml
- api.md from the OpenAPI document
- cli.md from the commands
- metrics.md from the metrics of a service
- events-reference.md from the events
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import event_reference
from prometheus_client.parser import text_string_to_metric_families

from app.composition.build import build_components
from app.config.settings import Settings
from app.config.variables import Variables

ROOT = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"# -- (?P<title>.*?)\.? -+$")
SETTING = re.compile(r"(?:# )?(?P<name>(?:DIALTONE|TELNYX)_[A-Z_]+)=(?P<default>.*)$")
PAGE = re.compile(r"\bdocs/([\w-]+)\.md(#[\w-]+)?")
"""A page that a comment of `.env.example` names."""
EXAMPLE = {
    "TELNYX_API_KEY": "KEY",
    "TELNYX_CONNECTION_ID": "1",
    "DIALTONE_ISSUER": "https://id.company.test",
    "DIALTONE_AUDIENCE": "dialtone",
    "DIALTONE_DATABASE_URL": "sqlite:///ledger.db",  # not opened
}
"""The smallest configuration of a service."""


def settings() -> str:
    """The sections of `.env.example`. Each setting or group of settings is described by the comment before it."""
    lines = ["# Settings", ""]
    comment: list[str] = []
    names: list[str] = []

    def flush() -> None:
        if names:
            lines.extend([*names, "", PAGE.sub(r"[\1](\1.md\2)", " ".join(comment)) or "See above.", ""])
            comment.clear()
            names.clear()

    for line in (ROOT / ".env.example").read_text().splitlines():
        if heading := HEADING.match(line):
            flush()
            comment.clear()
            title, _, page = heading["title"].partition(" (docs/")
            lines.extend([f"## {title}", ""])
            if page:
                lines.extend([PAGE.sub(r"See [\1](\1.md).", f"docs/{page.removesuffix(')')}"), ""])
        elif setting := SETTING.match(line):
            default = f" = `{setting['default']}`" if setting["default"] else ""
            names.append(f"- `{setting['name']}`{default}")
        else:
            flush()
            if not line:
                comment.clear()
            else:
                comment.append(line.removeprefix("#").strip())
    flush()
    return "\n".join(lines)


def configuration_file() -> str:
    """The tables of dialtone.toml and their keys."""
    schema = json.loads((ROOT / "dialtone.schema.json").read_text())
    tables = {"dialtone.toml": schema} | {
        name.removesuffix("Table"): table for name, table in schema["$defs"].items() if "properties" in table
    }
    lines = ["# Configuration file", "", "[Policy](policy.md) explains the tables with examples.", ""]
    for name, table in tables.items():
        lines.extend([f"## {name}", "", table.get("description", ""), ""])
        rows = [_key(key, schema, tables) for key, schema in table["properties"].items()]
        lines.extend(_table(("key", "type", "default", "meaning"), rows))
    return "\n".join(lines)


def _key(name: str, schema: Mapping[str, Any], tables: Collection[str]) -> tuple[str, ...]:
    default = schema.get("default")
    kind = _type(schema)
    linked = re.sub(r"[A-Z]\w+", lambda found: _linked(found.group(), tables), kind)
    meaning = _text(schema) or ("see the table of this type" if linked != kind else "")
    return f"`{name}`", linked, "" if default is None else f"`{json.dumps(default)}`", meaning


def _linked(kind: str, tables: Collection[str]) -> str:
    return f"[{kind}](#{kind.lower()})" if kind in tables else kind


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema and len(schema["enum"]) <= 8:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1].removesuffix("Table")
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if parts:
        return " or ".join(dict.fromkeys(map(_type, parts)))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _text(schema: Mapping[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def api() -> str:
    """The operations, grouped by tag."""
    document = json.loads((ROOT / "openapi.json").read_text())
    groups: dict[str, list[tuple[str, ...]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            row = (
                f"`{method.upper()} {path}`",
                operation["summary"],
                ", ".join(f"`{s}`" for s in operation["responses"]),
            )
            groups.setdefault(operation["tags"][0], []).append(row)
    lines = [
        "# API",
        "",
        "A running service shows the schemas at `/docs`. [Problem codes](errors.md) lists all errors.",
        "",
    ]
    for tag, rows in groups.items():
        lines.extend([f"## {tag}", "", *_table(("operation", "what it does", "statuses"), rows)])
    return "\n".join(lines)


def cli() -> str:
    """Every command with its arguments and options, as Typer documents them."""
    command = [sys.executable, "-m", "typer", "app.cli", "utils", "docs", "--name", "dialtone", "--title", "Commands"]
    return subprocess.run(  # noqa: S603 - no input
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def metrics() -> str:
    """Every metric that a service exports."""
    components = build_components(Settings.load(Variables(EXAMPLE, {}, "")))
    exported, _ = asyncio.run(components.metrics.exposition("text/plain"))
    families = sorted(text_string_to_metric_families(exported.decode()), key=lambda family: family.name)
    rows = [(f"`{family.name}`", family.type, family.documentation) for family in families]
    return "\n".join(
        [
            "# Metrics",
            "",
            "[Observability](observability.md) describes the labels and useful queries.",
            "",
            *_table(("metric", "type", "meaning"), rows),
        ]
    )


def events() -> str:
    """Every type of event."""
    return "\n".join(event_reference.lines())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield _row(head)
    yield _row(("---",) * len(head))
    yield from map(_row, rows)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


PAGES = {
    "settings.md": settings,
    "configuration-file.md": configuration_file,
    "api.md": api,
    "cli-reference.md": cli,
    "metrics.md": metrics,
    "events-reference.md": events,
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, page in PAGES.items():
        (folder / name).write_text(page() + "\n")

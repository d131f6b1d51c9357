"""A small project with the files that the release checks read."""

import json
from pathlib import Path

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-11-26

### Added

- A setting.

## [1.2.2] - 2026-10-01

- A fix.
"""


def write_project(root: Path, version: str = "1.2.3", client: str = "1.2.3", changelog: str = CHANGELOG) -> Path:
    """Writes the project, whose files agree unless the arguments differ."""
    documents = ("openapi.json", "docs/openapi/user.json", "docs/openapi/operators.json")
    files = {
        "app/__init__.py": f'"""The app."""\n\n__version__ = "{version}"\n',
        "CHANGELOG.md": changelog,
        "clients/js/package.json": json.dumps({"version": client}),
        "clients/js/package-lock.json": json.dumps({"version": client, "packages": {"": {"version": client}}}),
        **{name: json.dumps({"info": {"version": version}}) for name in documents},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root

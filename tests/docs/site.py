"""The folder of the built documentation site (`make docs`)."""

from pathlib import Path

SITE = Path(__file__).parents[2] / "build" / "site"

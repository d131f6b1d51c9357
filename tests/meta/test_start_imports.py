"""The service starts without the libraries of features that are off, because importing them takes much of the start."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["redis", "opentelemetry.sdk", "alembic"])
def test_service_starts_without_the_library_of_an_unused_feature(library: str) -> None:
    script = f"import sys, app.main; sys.exit({library!r} in sys.modules)"

    subprocess.run([sys.executable, "-c", script], check=True)

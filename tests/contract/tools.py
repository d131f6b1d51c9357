"""The tools of this folder: Node packages and a Python environment. Tests skip if they are not installed."""

import asyncio
import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DOCUMENTS = (
    ROOT / "openapi.json",
    ROOT / "docs" / "openapi" / "user.json",
    ROOT / "docs" / "openapi" / "operators.json",
)
NODE_BIN = HERE / "node_modules" / ".bin"
PYTHON_BIN = HERE / ".venv" / "bin"

OFFLINE = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}

MUST_RUN = bool(os.environ.get("REQUIRE_ALL"))
needs_node = pytest.mark.skipif(
    not MUST_RUN and not NODE_BIN.is_dir(), reason="needs Node 20.19 and `make contract-tools`"
)
needs_generator = pytest.mark.skipif(not MUST_RUN and not PYTHON_BIN.is_dir(), reason="needs `make contract-tools`")


async def run(*command: str | Path, cwd: Path = HERE) -> tuple[int, str]:
    """Exit status and output, with this folder's tools first on the PATH."""
    path = f"{NODE_BIN}:{PYTHON_BIN}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *(str(part) for part in command),
        cwd=cwd,
        env=os.environ | OFFLINE | {"PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()

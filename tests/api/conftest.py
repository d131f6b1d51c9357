"""Fixtures of several modules."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.grants import granting_service
from tests.support.sandbox import Telnyx
from tests.support.service import Service


@pytest.fixture
async def granting(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        yield service

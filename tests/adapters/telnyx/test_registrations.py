"""Look-ups of registrations: a device that never registered is not a failure."""

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from app.adapters.http_client import HttpClient
from app.adapters.telnyx.api import TelnyxApi
from app.adapters.telnyx.registrations import TelnyxRegistrations
from app.sandbox.account import DEMO_KEY
from app.vending.errors import TelnyxError, TelnyxNotFound, TelnyxServerError
from tests.support.sandbox import Telnyx


@pytest.fixture
async def api(telnyx: Telnyx) -> AsyncIterator[TelnyxApi]:
    async with HttpClient("dialtone/test") as outbound:
        yield TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=1.0)


async def levels_of_lookup(api: TelnyxApi, error: type[TelnyxError]) -> list[str]:
    """The levels of the lines that the failed look-up logs."""
    with capture_logs() as lines, pytest.raises(error):
        await TelnyxRegistrations(api).is_registered("gencred-unknown")
    return [line["log_level"] for line in lines]


async def test_unknown_sip_username_is_neither_a_warning_nor_a_failure(api: TelnyxApi) -> None:
    assert set(await levels_of_lookup(api, TelnyxNotFound)) <= {"debug"}
    assert api.last_failure is None


async def test_failed_lookup_is_a_warning_and_a_failure(api: TelnyxApi, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=500, path="/v2/sip_registration_status")

    assert await levels_of_lookup(api, TelnyxServerError) == ["warning"]
    assert api.last_failure is not None

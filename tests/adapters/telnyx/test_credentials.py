"""The Telnyx client: every operation, and a typed error for every failure."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from app.adapters.http_client import HttpClient
from app.adapters.telnyx.api import MAX_RETRY_AFTER_SECONDS, TelnyxApi
from app.adapters.telnyx.call_scheduler import MIN_OPEN_SECONDS
from app.adapters.telnyx.credentials import TelnyxCredentials
from app.adapters.telnyx.push import TelnyxConnections
from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY
from app.vending.errors import (
    CredentialExpired,
    TelnyxError,
    TelnyxForbidden,
    TelnyxKeyRejected,
    TelnyxNotFound,
    TelnyxRateLimited,
    TelnyxRejected,
    TelnyxResponseInvalid,
    TelnyxServerError,
    TelnyxUnreachable,
)
from tests.support.http_server import free_port
from tests.support.sandbox import Telnyx
from tests.support.verification import raw_token
from tests.support.waiting import DAY, LoopClock

PATIENT_SECONDS = 20.0
"""A deadline that only a hang meets."""


@pytest.fixture
async def api(telnyx: Telnyx) -> AsyncIterator[TelnyxApi]:
    async with HttpClient("dialtone/test") as outbound:
        yield TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=PATIENT_SECONDS)


@pytest.fixture
def client(api: TelnyxApi, telnyx: Telnyx) -> TelnyxCredentials:
    return TelnyxCredentials(api, telnyx.clock)


async def test_credential_can_be_created_updated_and_deleted(client: TelnyxCredentials, telnyx: Telnyx) -> None:
    until = (telnyx.clock() + DAY).replace(microsecond=0)
    made = await client.create(connection_id=DEMO_CONNECTION, name="n", tag="t", expires_at=until)
    token = await client.mint(made.id)
    password = await client.sip_password(made.id)
    longer = await client.update(made.id, expires_at=until + DAY, name="n2", tag="t2")
    shown = await client.retrieve(made.id)
    await client.delete(made.id)

    assert (made.connection_id, made.expires_at, made.is_expired) == (DEMO_CONNECTION, until, False)
    assert abs((token.expires_at - until).total_seconds()) < 2
    assert len(password.secret) == 32
    assert (longer.name, longer.expires_at, longer.sip_username) == ("n2", until + DAY, made.sip_username)
    assert shown == longer
    with pytest.raises(TelnyxNotFound):
        await client.delete(made.id)


async def test_list_returns_all_pages_and_applies_every_filter(client: TelnyxCredentials) -> None:
    made = [await client.create(connection_id=DEMO_CONNECTION, name=f"n{n}", tag="t") for n in range(7)]

    pages = [item async for item in client.list(page_size=3)]

    assert {item.id for item in pages} == {item.id for item in made}
    for narrowed in (
        client.list(name="n3"),
        client.list(sip_username=made[3].sip_username),
        client.by_name("n3"),
    ):
        assert [item.id async for item in narrowed] == [made[3].id]
    for whole in (client.list(tag="t"), client.list(status="active"), client.list(connection_id=DEMO_CONNECTION)):
        assert len([item async for item in whole]) == 7


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, TelnyxRejected),
        (401, TelnyxKeyRejected),
        (403, TelnyxForbidden),
        (404, TelnyxNotFound),
        (408, TelnyxServerError),
        (409, TelnyxRejected),
        (415, TelnyxRejected),
        (422, TelnyxRejected),
        (429, TelnyxRateLimited),
        (500, TelnyxServerError),
        (503, TelnyxServerError),
        (302, TelnyxResponseInvalid),
    ],
)
async def test_every_status_maps_to_its_error(
    client: TelnyxCredentials, telnyx: Telnyx, status: int, error: type[TelnyxError]
) -> None:
    telnyx.fail("status", status=status, body="<html>odd</html>", headers={"location": "http://127.0.0.1:1/"})

    with pytest.raises(TelnyxError) as raised:
        await client.create(connection_id=DEMO_CONNECTION)

    assert type(raised.value) is error
    assert raised.value.may_have_happened is (error in (TelnyxServerError, TelnyxResponseInvalid))


async def test_object_shaped_error_of_an_expired_credential_is_parsed(
    client: TelnyxCredentials, telnyx: Telnyx
) -> None:
    made = await client.create(connection_id=DEMO_CONNECTION, expires_at=telnyx.clock() + DAY)
    telnyx.clock.advance(2 * DAY)

    with pytest.raises(CredentialExpired):
        await client.extend(made.id, telnyx.clock() + DAY)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"x-ratelimit-reset": "3"}, 3),
        ({"retry-after": "-5", "x-ratelimit-reset": "4"}, 4),
        ({"retry-after": "1e308"}, MAX_RETRY_AFTER_SECONDS),
        ({"retry-after": "nan"}, 1),
        ({"retry-after": "inf"}, 1),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1),
        ({"x-ratelimit-reset": ""}, 1),
        ({}, 1),
    ],
    ids=str,
)
async def test_retry_after_of_telnyx_is_bounded(
    client: TelnyxCredentials, telnyx: Telnyx, headers: dict[str, str], seconds: float
) -> None:
    telnyx.fail("status", status=429, headers=headers)

    with pytest.raises(TelnyxRateLimited) as raised:
        await client.create(connection_id=DEMO_CONNECTION)

    assert raised.value.retry_after_seconds == seconds


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "hang"},
        {"kind": "drop"},
        {"kind": "drip", "seconds": 0.2},
        {"kind": "huge"},
        {"kind": "garbage", "body": "x", "headers": {"content-encoding": "gzip"}},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_timeout_raises_at_the_deadline_with_unknown_outcome(telnyx: Telnyx, fault: dict[str, object]) -> None:
    telnyx.fail(**fault, after_commit=True)  # type: ignore[arg-type]
    async with HttpClient("dialtone/test") as outbound:
        api = TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=1.0)

        async with LoopClock() as took:
            with pytest.raises(TelnyxUnreachable) as raised:
                await TelnyxCredentials(api, telnyx.clock).create(connection_id=DEMO_CONNECTION)

    assert raised.value.may_have_happened
    assert took.seconds < 1.5


@pytest.mark.parametrize("where", ["refused", "unknown host", "not TLS"])
async def test_request_that_was_never_sent_is_known_not_to_be_committed(telnyx: Telnyx, where: str) -> None:
    places = {
        "refused": f"http://127.0.0.1:{free_port()}",
        "unknown host": "http://nowhere.invalid",
        "not TLS": telnyx.url.replace("http://", "https://"),
    }
    async with HttpClient("dialtone/test") as outbound:
        client = TelnyxCredentials(TelnyxApi(outbound, base_url=places[where], api_key=DEMO_KEY), telnyx.clock)

        with pytest.raises(TelnyxUnreachable) as raised:
            await client.create(connection_id=DEMO_CONNECTION)

    assert not raised.value.may_have_happened
    assert telnyx.calls() == [], "an https URL is never called without TLS"


async def test_timed_out_calls_free_their_connections(telnyx: Telnyx) -> None:
    async with HttpClient("dialtone/test") as outbound:
        client = TelnyxCredentials(
            TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY, call_seconds=2.0), telnyx.clock
        )
        telnyx.fail("hang", times=1000)

        async with LoopClock() as took:
            outcomes = await asyncio.gather(
                *(client.create(connection_id=DEMO_CONNECTION) for _ in range(200)), return_exceptions=True
            )

        assert took.seconds < 3
        assert all(isinstance(outcome, TelnyxUnreachable | TelnyxRateLimited) for outcome in outcomes)
        telnyx.sandbox.faults.plans.clear()
        await asyncio.sleep(MIN_OPEN_SECONDS * 1.3)
        assert (await client.create(connection_id=DEMO_CONNECTION)).id


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"data": []}',
        '{"data": {"id": ""}}',
        '{"data": {"id": "a", "sip_username": 5}}',
        '{"data": {"id": "a\\u0000", "sip_username": "b"}}',
        "[" * 100_000,
        '{"data": {"id": "x", "sip_username": "' + "y" * 300 + '"}}',
        "\ud7ff",
    ],
    ids=lambda body: body[:20] or "empty",
)
async def test_response_without_a_required_field_is_unreadable(
    client: TelnyxCredentials, telnyx: Telnyx, body: str
) -> None:
    telnyx.fail("garbage", body=body)

    with pytest.raises(TelnyxResponseInvalid):
        await client.create(connection_id=DEMO_CONNECTION)


async def test_unknown_fields_and_older_formats_are_accepted(client: TelnyxCredentials, telnyx: Telnyx) -> None:
    made = await client.create(connection_id=DEMO_CONNECTION)
    telnyx.fail(
        "garbage",
        body='{"data": {"id": "a", "sip_username": "b", "expired": "true", "expires_at": "2026-06-18T21:32:38.000Z",'
        ' "created_at": "2016-12-31T23:59:60", "new_field": {"x": [1]}, "name": null, "resource_id": 5}}',
    )

    found = await client.retrieve(made.id)

    assert found.is_expired
    assert found.expires_at == datetime(2026, 6, 18, 21, 32, 38, tzinfo=UTC)
    assert found.created_at == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert (found.name, found.connection_id) == ("", None)


@pytest.mark.parametrize("wrap", ["{}", '"{}"', " {}\n", '{{"data": "{}"}}'])
async def test_login_token_is_found_in_every_known_response_shape(
    client: TelnyxCredentials, telnyx: Telnyx, wrap: str
) -> None:
    made = await client.create(connection_id=DEMO_CONNECTION)
    secret = telnyx.sandbox.account.mint_token(made.id)
    telnyx.fail("garbage", path="/token$", body=wrap.format(secret), headers={"content-type": "text/plain"})

    assert (await client.mint(made.id)).secret == secret


@pytest.mark.parametrize("body", ["", "null", "a.b", "a.b.c.d", '{"data": 5}', "a b.c.d", '"', "ä.b.c", "a.b.c" * 3000])
async def test_response_without_a_login_token_is_unreadable(
    client: TelnyxCredentials, telnyx: Telnyx, body: str
) -> None:
    telnyx.fail("garbage", path="/token$", body=body)
    made = await client.create(connection_id=DEMO_CONNECTION)

    with pytest.raises(TelnyxResponseInvalid):
        await client.mint(made.id)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", ""])
async def test_time_that_cannot_be_represented_is_unknown(
    client: TelnyxCredentials, telnyx: Telnyx, moment: str
) -> None:
    telnyx.fail("garbage", body='{"data": {"id": "a", "sip_username": "b", "expires_at": "%s"}}' % moment)

    assert (await client.create(connection_id=DEMO_CONNECTION)).expires_at is None


HEADER = {"alg": "HS512", "typ": "JWT"}


@pytest.mark.parametrize(
    "body",
    [
        "a.b.c",
        "eyJhbGciOiJub25lIn0.bm90IGpzb24.c2ln",
        raw_token(HEADER, {}),
        raw_token(HEADER, "[]"),
        raw_token(HEADER, '{"exp": 4000000000, "exp": 4000000001}'),
        raw_token("[]", {"exp": 4_000_000_000}),
        raw_token("x", {"exp": 4_000_000_000}),
        raw_token(HEADER, {"exp": 4_000_000_000}) + "=",
        *[
            raw_token(HEADER, '{"exp": %s}' % exp)
            for exp in (
                *("null", "true", "[]", "{}", '"4000000000"', '"2096-10-02T07:06:40Z"'),
                *("NaN", "Infinity", "1e400", "1e300", "9" * 25, "9" * 5000, "253402300800", "-" + "9" * 25),
                *("0", "-1", "1000000000", "1000000000.5"),
            )
        ],
    ],
    ids=lambda body: body[:60],
)
async def test_login_token_without_a_usable_expiry_is_unreadable(
    client: TelnyxCredentials, telnyx: Telnyx, body: str
) -> None:
    made = await client.create(connection_id=DEMO_CONNECTION)
    telnyx.fail("garbage", path="/token$", body=body)

    with pytest.raises(TelnyxResponseInvalid) as raised:
        await client.mint(made.id)

    assert body not in "".join(str(error) for error in (raised.value, raised.value.__cause__))


@pytest.mark.parametrize("left", [1, 36_000, 86_400, 2_419_200])
async def test_login_token_lives_until_its_expiry(api: TelnyxApi, telnyx: Telnyx, left: int) -> None:
    now = telnyx.clock()
    client = TelnyxCredentials(api, lambda: now)
    made = await client.create(connection_id=DEMO_CONNECTION)
    exp = int(now.timestamp()) + left + 1
    telnyx.fail("garbage", path="/token$", body=raw_token(HEADER, {"exp": exp, "iat": exp - left}))
    telnyx.fail("garbage", path="/token$", body=raw_token(HEADER, {"exp": exp + 0.5}))

    assert (await client.mint(made.id)).expires_at == datetime.fromtimestamp(exp, UTC)
    assert (await client.mint(made.id)).expires_at == datetime.fromtimestamp(exp, UTC)


async def test_reads_and_deletes_are_retried_and_creates_are_not(client: TelnyxCredentials, telnyx: Telnyx) -> None:
    made = await client.create(connection_id=DEMO_CONNECTION)
    telnyx.sandbox.journal.clear()

    telnyx.fail("status", status=503, times=2)
    await client.retrieve(made.id)
    telnyx.fail("drop", times=1)
    await client.delete(made.id)
    telnyx.fail("status", status=503)
    with pytest.raises(TelnyxServerError):
        await client.create(connection_id=DEMO_CONNECTION)

    assert [len(telnyx.calls(method)) for method in ("GET", "DELETE", "POST")] == [3, 2, 1]


@pytest.mark.timeout(300)
async def test_endless_list_is_aborted(client: TelnyxCredentials, telnyx: Telnyx) -> None:
    item = '{"id": "a", "sip_username": "b"}'
    telnyx.fail("garbage", times=10_000, body=f'{{"data": [{item}], "meta": {{"total_pages": 999999999}}}}')

    async def walk() -> None:
        async for _ in client.list(page_size=1):
            pass

    with pytest.raises(TelnyxResponseInvalid):
        await asyncio.wait_for(walk(), 280)


async def test_proxy_environment_variables_are_ignored(telnyx: Telnyx, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    async with HttpClient("dialtone/test") as outbound:
        client = TelnyxCredentials(TelnyxApi(outbound, base_url=telnyx.url, api_key=DEMO_KEY), telnyx.clock)

        assert (await client.create(connection_id=DEMO_CONNECTION)).id


async def test_error_is_logged_by_code_without_telnyx_text(client: TelnyxCredentials, telnyx: Telnyx) -> None:
    telnyx.fail("status", status=422, body='{"errors":[{"code":"10015","title":"t","detail":"hunter2"}]}')

    with capture_logs() as lines, pytest.raises(TelnyxRejected):
        await client.create(connection_id=DEMO_CONNECTION)

    assert lines[0]["codes"] == ["10015"]
    assert "hunter2" not in str(lines)


async def test_connection_check_only_reads(api: TelnyxApi, telnyx: Telnyx) -> None:
    connections = TelnyxConnections(api)
    await connections.check(DEMO_CONNECTION)

    with pytest.raises(TelnyxNotFound):
        await connections.check("1")

"""A Redis server as a store: deadlines, the circuit breaker, and errors of the server."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from app.adapters.login_cache.redis_store import CALL_SECONDS, MAX_FAILURES, PROBE_SECONDS, RedisStore
from app.adapters.login_cache.shared import MAX_ENTRY_BYTES, StoreFailed, StoreUnavailable
from tests.support.certificates import certificate_authority
from tests.support.http_server import free_port
from tests.support.redis_server import RedisServer, redis_server
from tests.support.waiting import LoopClock

PATIENT_SECONDS = 20.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def store_at(
    url: str, *, call_seconds: float = PATIENT_SECONDS, probe_seconds: float = PATIENT_SECONDS
) -> AsyncIterator[RedisStore]:
    """A store whose deadlines are so long that only a test of them meets one."""
    store = RedisStore(url, "dialtone-login:", call_seconds=call_seconds, probe_seconds=probe_seconds)
    await store.probe()
    yield store
    await store.close()


@contextmanager
def paused(redis: RedisServer) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


async def value_after_an_outage(store: RedisStore, name: str) -> bytes | None:
    """The value, once the store is available and a call has succeeded."""
    async with asyncio.timeout(PATIENT_SECONDS):
        while True:
            if not store.is_available:
                await store.probe()
            with suppress(StoreFailed):
                return await store.get(name)


async def reason_of(store: RedisStore) -> str:
    with pytest.raises(StoreFailed) as failed:
        await store.get("name")
    return failed.value.reason


async def test_value_is_read_until_it_expires(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        await store.put("name", b"value", 60_000)
        found = await store.get("name")
        milliseconds_left = redis.client.pttl("name")
        await store.put("name", b"value", 60)
        async with asyncio.timeout(PATIENT_SECONDS):
            while await store.get("name") is not None:
                await asyncio.sleep(0.02)

    assert found == b"value"
    assert 0 < milliseconds_left <= 60_000


async def test_deleted_value_is_gone(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        await store.put("one", b"1", 60_000)
        await store.put("two", b"2", 60_000)
        await store.delete(["one", "two", "three"])

        assert [await store.get(name) for name in ("one", "two", "three")] == [None, None, None]


async def test_only_the_beginning_of_a_huge_value_is_read(redis: RedisServer) -> None:
    redis.client.set("huge", b"x" * 3_000_000)
    async with store_at(redis.url) as store:
        found = await store.get("huge")

    assert found is not None
    assert len(found) == MAX_ENTRY_BYTES + 1


async def test_value_of_another_type_is_invalid_and_the_store_stays_available(redis: RedisServer) -> None:
    redis.client.delete("name")
    redis.client.lpush("name", "x")
    async with store_at(redis.url) as store:
        reasons = {await reason_of(store) for _ in range(2 * MAX_FAILURES)}
        is_available = store.is_available
    redis.client.delete("name")

    assert reasons == {"invalid"}
    assert is_available


async def test_hundred_calls_at_a_time_succeed(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        await asyncio.gather(*(store.put(f"k{number}", b"%d" % number, 60_000) for number in range(100)))
        found = await asyncio.gather(*(store.get(f"k{number}") for number in range(100)))

    assert found == [b"%d" % number for number in range(100)]


async def test_new_password_is_used_from_the_next_probe_on(tmp_path: Path) -> None:
    with redis_server(tmp_path, password="old") as server:
        async with store_at(server.url) as store:
            server.client.execute_command("ACL", "SETUSER", "default", ">new", "<old")
            await store.put("name", b"value", 60_000)

            store.use_login(server.url.replace(":old@", ":new@"))
            before = await reason_of(store)
            await store.probe()

            assert (before, await store.get("name")) == ("unavailable", b"value")


async def test_same_address_does_not_interrupt_the_store(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        store.use_login(redis.url)

        assert store.is_available


async def test_probe_of_the_former_address_does_not_make_the_store_available(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        probing = asyncio.create_task(store.probe())
        await asyncio.sleep(0)
        store.use_login(redis.url.replace("redis://", "redis://:wrong@"))
        await probing
        is_available = store.is_available
        await store.probe()

    assert (is_available, store.is_available) == (False, False)


async def test_password_that_the_server_rejects_is_logged_once(redis: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with store_at(redis.url) as store:
            store.use_login(redis.url.replace("redis://", "redis://:CANARY@"))
            for _ in range(3):
                await store.probe()
            reason = await reason_of(store)

    assert reason == "unavailable"
    assert [(line["event"], line["reason"]) for line in logged] == [
        ("shared_login_cache_unavailable", "authentication")
    ]
    assert "CANARY" not in str(logged)


async def test_busy_event_loop_is_no_timeout(redis: RedisServer) -> None:
    async def block() -> None:
        for _ in range(5):
            time.sleep(0.6)  # noqa: ASYNC251 - what a busy replica does
            await asyncio.sleep(0)

    async with store_at(redis.url, call_seconds=2) as store:
        await store.put("name", b"value", 60_000)
        blocking = asyncio.create_task(block())
        found = await asyncio.gather(*(store.get("name") for _ in range(20)))
        await blocking

    assert set(found) == {b"value"}


@asynccontextmanager
async def fake_server(response: bytes | None, after: bytes = b"") -> AsyncIterator[str]:
    """A server that sends one response to each command; None: no response. Yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            if response is not None:
                writer.write(response)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"-NOAUTH Authentication required.\r\n", "authentication"),
        (b"-NOPERM this user has no permissions to run the 'set' command\r\n", "authentication"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "cluster"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "cluster"),
        (b"-READONLY You can't write against a read only replica.\r\n", "read_only"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "rejected"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (None, "timeout"),
    ],
    ids=lambda value: value.decode().split()[0] if isinstance(value, bytes) else None,
)
async def test_error_of_the_server_makes_the_store_unavailable(response: bytes | None, reason: str) -> None:
    probe_seconds = PROBE_SECONDS if response is None else PATIENT_SECONDS
    async with fake_server(response) as url, store_at(url, probe_seconds=probe_seconds) as store:
        with pytest.raises(StoreFailed) as failed:
            await store.check()
        unavailable = await reason_of(store)

    assert failed.value.reason == reason
    assert not store.is_available
    assert unavailable == "unavailable"


async def test_unreachable_server_is_a_failed_connection() -> None:
    async with store_at(f"redis://127.0.0.1:{free_port()}/0") as store:
        with pytest.raises(StoreFailed) as failed:
            await store.check()

    assert failed.value.reason == "connection"


async def test_paused_server_costs_a_few_short_calls_and_then_none(redis: RedisServer) -> None:
    async with store_at(redis.url, call_seconds=CALL_SECONDS) as store:
        with paused(redis):
            async with LoopClock() as took:
                reasons = [await reason_of(store) for _ in range(MAX_FAILURES)]
            with pytest.raises(StoreUnavailable):
                await store.get("name")
        found = await value_after_an_outage(store, "none")

    assert reasons == ["timeout"] * MAX_FAILURES
    assert took.seconds < 1
    assert found is None


async def test_response_of_a_cancelled_call_is_not_returned_to_another_call(redis: RedisServer) -> None:
    async with store_at(redis.url) as store:
        for number in range(40):
            await store.put(f"k{number}", b"%d" % number, 60_000)
        for number in range(40):
            task = asyncio.create_task(store.get(f"k{number}"))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            task.cancel()
            assert await store.get(f"k{39 - number}") == b"%d" % (39 - number)


async def test_change_of_availability_is_logged_once(redis: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with store_at(redis.url, call_seconds=CALL_SECONDS, probe_seconds=3) as store:
            with paused(redis):
                for _ in range(MAX_FAILURES):
                    await reason_of(store)
                await store.probe()
            async with asyncio.timeout(PATIENT_SECONDS):
                while not store.is_available:
                    await store.probe()

    assert [(entry["event"], entry.get("reason")) for entry in logged] == [
        ("shared_login_cache_unavailable", "timeout"),
        ("shared_login_cache_available", None),
    ]


async def test_password_is_sent_and_not_logged(tmp_path: Path) -> None:
    with redis_server(tmp_path, password="CANARY") as server, structlog.testing.capture_logs() as logged:
        async with store_at(server.url) as store:
            await store.put("name", b"value", 60_000)
        async with store_at(server.url.replace("CANARY", "CANARY-wrong")) as wrong:
            is_available = wrong.is_available

    assert not is_available
    assert [entry["reason"] for entry in logged] == ["authentication"]
    assert "CANARY" not in str(logged)
    assert "CANARY" not in repr(store)


async def test_documented_permissions_are_sufficient(tmp_path: Path) -> None:
    user = ["reset", "on", ">CANARY", "~dialtone-login:*", "+set", "+getrange", "+del", "+select"]
    with redis_server(tmp_path) as server:
        server.client.execute_command("ACL", "SETUSER", "dialtone", *user)
        async with store_at(f"redis://dialtone:CANARY@127.0.0.1:{server.port}/1") as store:
            await store.put("dialtone-login:a", b"value", 60_000)
            found = await store.get("dialtone-login:a")
            await store.delete(["dialtone-login:a"])
            reason = await reason_of(store)

    assert found == b"value"
    assert reason == "authentication", "another key"


async def test_tls_server_needs_a_certificate_of_a_known_authority(redis: RedisServer, tmp_path: Path) -> None:
    authority = certificate_authority()
    file = tmp_path / "ca.pem"
    file.write_text(authority.pem)
    async with tls_proxy(redis.port, authority.server) as port:
        url = f"rediss://localhost:{port}/0"
        async with store_at(f"{url}?ssl_ca_certs={file}") as trusting, store_at(url) as strict:
            await trusting.put("name", b"value", 60_000)
            found, is_available = await trusting.get("name"), strict.is_available

    assert found == b"value"
    assert not is_available


@asynccontextmanager
async def tls_proxy(target: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(join, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()

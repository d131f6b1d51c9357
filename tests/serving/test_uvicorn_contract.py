"""The facts about uvicorn that `app/serving` relies on, one per test. A failure after an upgrade names the change.

`make serving-compat` runs this folder with other releases, which it names in `UVICORN_RELEASE`.
"""

import asyncio
import copy
import os
import signal
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

ROOT = Path(__file__).parents[2]
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def supported_releases() -> SpecifierSet:
    release = os.environ.get("UVICORN_RELEASE")
    if release is not None:
        return SpecifierSet(f"~={release}.0")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (uvicorn_range,) = (
        found.specifier for found in map(Requirement, project["dependencies"]) if found.name == "uvicorn"
    )
    return uvicorn_range


class RecordingApp:
    """Answers every request with an empty response, and records the scopes and the messages that it received."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.received: list[Message] = []
        self.waits = False
        """Receive messages until the client has disconnected, instead of answering."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        while self.waits:
            self.received.append(await receive())
            self.waits = self.received[-1]["type"] != "http.disconnect"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


class RecordingTransport(asyncio.Transport):
    """Has the methods of FrontTransport. asyncio's base class raises NotImplementedError for all others."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closes = 0
        self.is_reading_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 4711) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closes > 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closes += 1

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


@pytest.fixture
def config(app: RecordingApp) -> uvicorn.Config:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False)
    config.load()
    return config


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def connect(
    config: uvicorn.Config, state: ServerState, **app_state: Any
) -> tuple[HttpToolsProtocol, RecordingTransport]:
    protocol, transport = HttpToolsProtocol(config, state, app_state), RecordingTransport()
    protocol.connection_made(transport)
    return protocol, transport


# The release


def test_installed_uvicorn_is_a_tested_release() -> None:
    installed, supported = version("uvicorn"), supported_releases()

    assert installed == uvicorn.__version__
    assert installed in supported, (
        f"uvicorn {installed} is installed, but app/serving is tested with uvicorn {supported}. "
        "CONTRIBUTING.md says how to upgrade uvicorn."
    )


# HttpToolsProtocol: app/serving/uvicorn_protocol.py


async def test_protocol_is_made_of_config_server_state_and_app_state(config: uvicorn.Config, app: RecordingApp) -> None:
    _, transport = connect(config, ServerState())

    assert not app.scopes
    assert not transport.written


async def test_protocol_needs_only_the_methods_of_the_fronts_transport(config: uvicorn.Config) -> None:
    protocol, transport = connect(config, ServerState())

    protocol.data_received(REQUEST)

    await until(lambda: transport.written.endswith(b"\r\n\r\n"))
    assert transport.written.startswith(b"HTTP/1.1 204 ")
    assert not transport.closes


async def test_client_of_the_scope_is_the_transports_peer(config: uvicorn.Config, app: RecordingApp) -> None:
    protocol, _ = connect(config, ServerState())

    protocol.data_received(REQUEST)

    await until(lambda: app.scopes)
    assert app.scopes[0]["client"] == ("192.0.2.1", 4711)


async def test_state_of_each_scope_is_a_copy_of_the_app_state_with_the_same_values(
    config: uvicorn.Config, app: RecordingApp
) -> None:
    marker = object()
    protocol, _ = connect(config, ServerState(), marker=marker)

    protocol.data_received(REQUEST)
    await until(lambda: len(app.scopes) == 1)
    assert app.scopes[0]["state"].pop("marker") is marker

    protocol.data_received(REQUEST)
    await until(lambda: len(app.scopes) == 2)
    assert app.scopes[1]["state"]["marker"] is marker


async def test_protocol_is_one_of_the_servers_connections_until_it_is_lost(config: uvicorn.Config) -> None:
    state = ServerState()
    protocol, _ = connect(config, state)
    assert state.connections == {protocol}

    protocol.connection_lost(None)

    assert state.connections == set()


async def test_app_that_reads_gets_a_disconnect_when_the_connection_is_lost(
    config: uvicorn.Config, app: RecordingApp
) -> None:
    app.waits = True
    protocol, transport = connect(config, ServerState())
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    await until(lambda: app.received)

    protocol.connection_lost(None)

    await until(lambda: len(app.received) == 2)
    assert [message["type"] for message in app.received] == ["http.request", "http.disconnect"]
    await asyncio.sleep(0)
    assert not transport.written


async def test_keep_alive_timeout_of_the_config_closes_an_idle_connection(config: uvicorn.Config) -> None:
    short = copy.copy(config)
    short.timeout_keep_alive = cast("int", 0.01)
    protocol, transport = connect(short, ServerState())

    protocol.data_received(REQUEST)

    await until(lambda: transport.closes)
    assert config.timeout_keep_alive == 5, "a copy of the config has a timeout of its own"


async def test_connection_lost_without_an_exception_cancels_the_keep_alive_timer(config: uvicorn.Config) -> None:
    config.timeout_keep_alive = cast("int", 0.02)
    protocol, transport = connect(config, ServerState())
    protocol.data_received(REQUEST)
    await until(lambda: transport.written)

    protocol.connection_lost(None)

    closes = transport.closes
    await asyncio.sleep(0.05)
    assert transport.closes == closes


async def test_shutdown_closes_an_idle_connection(config: uvicorn.Config) -> None:
    protocol, transport = connect(config, ServerState())

    protocol.shutdown()

    assert transport.closes == 1


# ServerState: app/serving/front.py


def test_server_state_has_connections_default_headers_and_a_count_of_requests() -> None:
    state = ServerState()

    assert (state.connections, state.default_headers, state.total_requests) == (set(), [], 0)


async def test_protocol_writes_the_default_headers_and_counts_the_request(config: uvicorn.Config) -> None:
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    protocol, transport = connect(config, state)

    protocol.data_received(REQUEST)

    await until(lambda: state.total_requests)
    assert state.total_requests == 1
    assert b"\r\ndate: today\r\n" in transport.written


async def test_server_replaces_the_list_of_default_headers_instead_of_changing_it(config: uvicorn.Config) -> None:
    """The outbox renders the list again when it is another object."""
    server = uvicorn.Server(config)
    await server.on_tick(0)
    first = server.server_state.default_headers
    content = list(first)

    await server.on_tick(10)

    assert server.server_state.default_headers is not first
    assert first == content
    assert [name for name, _ in first] == [b"date"]


async def test_header_that_is_added_to_the_config_is_a_default_header_after_the_next_tick(
    config: uvicorn.Config,
) -> None:
    """The server announces during its drain that connections close."""
    server = uvicorn.Server(config)
    await server.on_tick(0)
    config.encoded_headers.append((b"connection", b"close"))

    await server.on_tick(10)

    assert server.server_state.default_headers[-1] == (b"connection", b"close")


async def test_default_header_that_closes_the_connection_closes_it_after_the_response(config: uvicorn.Config) -> None:
    state = ServerState()
    state.default_headers = [(b"connection", b"close")]
    protocol, transport = connect(config, state)

    protocol.data_received(REQUEST)

    await until(lambda: transport.closes)
    assert transport.written.count(b"connection: close\r\n") == 1


# Config and Server: app/serving/server.py, app/serving/admission.py


class RecordingFactory:
    """A factory in place of a protocol class, as ConnectionLimiter is."""

    def __init__(self) -> None:
        self.arguments: list[dict[str, Any]] = []
        self.shutdowns = 0

    def __call__(self, **arguments: Any) -> asyncio.Protocol:
        self.arguments.append(arguments)
        arguments["server_state"].connections.add(self)
        return asyncio.Protocol()

    def shutdown(self) -> None:
        self.shutdowns += 1


class BriefServer(uvicorn.Server):
    """Stops after a client has connected."""

    async def main_loop(self) -> None:
        port = self.servers[0].sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: self.server_state.connections)
        connections = cast("set[Any]", self.server_state.connections)
        asyncio.get_running_loop().call_later(0.02, connections.clear)
        writer.close()


async def served(app: RecordingApp) -> tuple[RecordingFactory, uvicorn.Config, uvicorn.Server]:
    factory = RecordingFactory()
    config = uvicorn.Config(app, port=0, http=cast("Any", factory), ws="none", lifespan="off", log_config=None)
    server = BriefServer(config)
    async with asyncio.timeout(20):
        await server.serve()
    return factory, config, server


async def test_server_calls_the_factory_with_config_state_and_loop_by_name(app: RecordingApp) -> None:
    factory, config, server = await served(app)

    (arguments,) = factory.arguments
    assert set(arguments) == {"config", "server_state", "app_state", "_loop"}
    assert arguments["config"] is config
    assert arguments["server_state"] is server.server_state
    assert arguments["app_state"] == {}


async def test_server_without_sockets_listens_nowhere_and_closes_the_servers_that_are_added(app: RecordingApp) -> None:
    class Adding(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup([])
            assert (self.servers, self.lifespan.state) == ([], {})
            added = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
            self.servers.append(added)
            self.should_exit = True

    server = Adding(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    async with asyncio.timeout(20):
        await server.serve()

    assert not server.servers[0].is_serving()


async def test_stopping_server_shuts_each_connection_down_once(app: RecordingApp) -> None:
    factory, _, _ = await served(app)

    assert factory.shutdowns == 1


def test_config_keeps_the_timeout_and_the_trusted_proxies(app: RecordingApp) -> None:
    config = uvicorn.Config(app, timeout_keep_alive=75, forwarded_allow_ips="192.0.2.0/24", log_config=None)

    assert config.timeout_keep_alive == 75
    assert config.forwarded_allow_ips == "192.0.2.0/24"


def test_loaded_app_is_inside_the_proxy_headers_middleware(config: uvicorn.Config) -> None:
    assert isinstance(config.loaded_app, ProxyHeadersMiddleware)


def test_exit_handler_asks_the_server_to_stop(config: uvicorn.Config) -> None:
    server = uvicorn.Server(config)

    server.handle_exit(signal.SIGTERM, None)

    assert server.should_exit
    assert not server.force_exit


# ProxyHeadersMiddleware: app/serving/client_address.py


async def client_behind_proxies(peer: str, forwarded: str, trusted: str = "127.0.0.1, 10.0.0.0/8") -> str:
    app = RecordingApp()
    scope: Scope = {
        "type": "http",
        "client": (peer, 0),
        "scheme": "http",
        "headers": [(b"x-forwarded-for", forwarded.encode())],
    }

    async def send(_: Message) -> None:
        """Nothing reads the response."""

    middleware = ProxyHeadersMiddleware(cast("Any", app), trusted)
    with pytest.raises(StopIteration):  # it awaits nothing of its own
        middleware(cast("Any", scope), cast("Any", None), cast("Any", send)).send(None)
    return str(app.scopes[0]["client"][0])


async def test_forwarded_address_of_an_untrusted_peer_is_ignored() -> None:
    assert await client_behind_proxies("192.0.2.1", "203.0.113.7") == "192.0.2.1"


async def test_client_is_the_last_forwarded_address_that_is_not_a_trusted_proxy() -> None:
    assert await client_behind_proxies("127.0.0.1", "198.51.100.9, 203.0.113.7, 10.1.2.3") == "203.0.113.7"


async def test_client_is_the_first_forwarded_address_if_all_are_trusted() -> None:
    assert await client_behind_proxies("127.0.0.1", "10.0.0.1, 10.0.0.2") == "10.0.0.1"


async def test_client_is_the_first_forwarded_address_if_every_peer_is_trusted() -> None:
    assert await client_behind_proxies("192.0.2.1", "198.51.100.9, 203.0.113.7", trusted="*") == "198.51.100.9"


async def test_empty_forwarded_header_leaves_the_peer() -> None:
    assert await client_behind_proxies("127.0.0.1", "") == "127.0.0.1"

"""Firefox, driven by WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/).

Playwright drives only its own build of Firefox, not the one that a Linux distribution packages.
"""

import asyncio
import itertools
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.support.browser import WAIT_SECONDS, skip_without
from tests.support.http_server import free_port

START_SECONDS = 60.0
COMMAND_SECONDS = 60.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
PREFERENCES = {
    "media.navigator.streams.fake": True,  # a tone in place of a microphone
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.peerconnection.ice.loopback": True,
    "dom.disable_open_during_load": False,
    "dom.disable_beforeunload": True,
    "network.proxy.type": 0,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.server": "",
}
"""Preferences of the profile: fake media, no questions, and no requests to other machines."""


class BidiError(Exception):
    """Firefox rejected a command, or the script of a page threw an error."""


class Bidi:
    """A WebDriver BiDi session. Sends commands and matches the responses by id."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def receive(self) -> None:
        """Deliver responses until the connection ends. Events are ignored."""
        async for text in self._socket:
            message = json.loads(text)
            if waiting := self._waiting.pop(message.get("id"), None):
                waiting.set_result(message)

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises BidiError."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self._waiting[number], COMMAND_SECONDS)
        if answer["type"] == "error":
            raise BidiError(f"{method}: {answer['error']}: {answer['message']}")
        result: dict[str, Any] = answer["result"]
        return result


class FirefoxTab:
    """One tab. Expressions are JavaScript, and may be promises."""

    def __init__(self, bidi: Bidi, context: str) -> None:
        self._bidi = bidi
        self.context = context

    async def goto(self, url: str) -> None:
        await self._bidi.command("browsingContext.navigate", context=self.context, url=url, wait="complete")

    async def reload(self) -> None:
        await self._bidi.command("browsingContext.reload", context=self.context, wait="complete")

    async def back(self) -> None:
        """Go back in the history to another URL, and wait until the page is loaded."""
        here = await self.evaluate("location.href")
        await self._bidi.command("browsingContext.traverseHistory", context=self.context, delta=-1)
        await self._wait_until_loaded(here)

    async def run_in_each_page(self, script: str) -> None:
        """Run a script in each page that this tab loads from now on, before the scripts of the page."""
        function = f"() => {{\n{script}\n}}"
        await self._bidi.command("script.addPreloadScript", functionDeclaration=function, contexts=[self.context])

    async def close(self) -> None:
        await self._bidi.command("browsingContext.close", context=self.context)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression: text, number, boolean or None. Raises BidiError."""
        answer = await self._bidi.command(
            "script.evaluate",
            expression=expression,
            target={"context": self.context},
            awaitPromise=True,
            userActivation=True,
        )
        if answer["type"] == "exception":
            raise BidiError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until the expression is true. Raises AssertionError."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not await self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"not true in {WAIT_SECONDS} seconds: {expression}"
            await asyncio.sleep(0.1)

    async def _wait_until_loaded(self, former: str) -> None:
        """Wait until a page with another URL is loaded. Until then, the tab may have an empty document or none."""
        deadline = time.monotonic() + WAIT_SECONDS
        urls = json.dumps(["about:blank", former])
        loaded = f"!{urls}.includes(location.href) && document.readyState === 'complete'"
        while True:
            with suppress(BidiError):
                if await self.evaluate(loaded):
                    return
            assert time.monotonic() < deadline, f"no page replaced {former}"
            await asyncio.sleep(0.1)

    async def duplicate(self) -> "FirefoxTab":
        """A tab with a copy of this tab's session storage, as the browser's *Duplicate Tab* makes it."""
        before = await self._contexts()
        await self.evaluate("window.open(location.href) !== null")
        while not (new := await self._contexts() - before):
            await asyncio.sleep(0.05)
        tab = FirefoxTab(self._bidi, new.pop())
        await tab._wait_until_loaded("about:blank")
        return tab

    async def _contexts(self) -> set[str]:
        tree = await self._bidi.command("browsingContext.getTree", maxDepth=0)
        return {context["context"] for context in tree["contexts"]}


class Firefox:
    """A running Firefox."""

    def __init__(self, bidi: Bidi, pid: int) -> None:
        self._bidi = bidi
        self._pid = pid

    def page_processes(self) -> list[int]:
        """The ids of the processes that run pages."""
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has ended
                # Processes of the fork server separate their arguments with spaces.
                words = (folder / "cmdline").read_text().replace("\0", " ").split()
                if words[-1:] == ["tab"] and f"-parentPid {self._pid} " in " ".join(words):
                    found.append(int(folder.name))
        return found

    async def profile_tab(self) -> FirefoxTab:
        """A tab in a new container, which shares no storage with the other tabs."""
        container = (await self._bidi.command("browser.createUserContext"))["userContext"]
        opened = await self._bidi.command("browsingContext.create", type="tab", userContext=container)
        return FirefoxTab(self._bidi, opened["context"])


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """Firefox without a window and with an empty profile in this folder. Skips if it is not installed; fails in CI."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        skip_without("no Firefox: install Debian's firefox-esr")
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless",
        "--no-remote",
        f"--remote-debugging-port={port}",
        "--profile",
        str(profile),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with await _connect(f"ws://127.0.0.1:{port}/session") as socket:
            bidi = Bidi(socket)
            receiver = asyncio.create_task(bidi.receive())
            await bidi.command("session.new", capabilities={})
            yield Firefox(bidi, process.pid)
            receiver.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _connect(url: str) -> ClientConnection:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        try:
            return await connect(url, proxy=None, max_size=MAX_MESSAGE_BYTES)
        except (OSError, WebSocketException):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)

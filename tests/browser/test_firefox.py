"""Firefox with the unmodified SDK: the softphone page, and React 19 in StrictMode."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from tests.support.browser import RECEIVED_BYTES, WAIT_SECONDS, PageServers, page_servers, skip_without_client
from tests.support.firefox import Firefox, FirefoxTab, firefox
from tests.support.react_page import COMPONENTS, ROUNDS, bundle_react_page, react_script
from tests.support.waiting import eventually

STORED = "JSON.stringify(sessionStorage)"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@dataclass
class Environment:
    servers: PageServers
    browser: Firefox

    async def softphone(self) -> FirefoxTab:
        """A tab with the softphone page, in a container of its own."""
        tab = await self.browser.profile_tab()
        await tab.goto(self.servers.url)
        return tab

    def registrations(self) -> list[str]:
        return self.servers.telnyx.sandbox.exchange.registrations()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Environment]:
    skip_without_client()
    async with (
        firefox(tmp_path_factory.mktemp("profile")) as browser,
        page_servers(tmp_path_factory.mktemp("servers"), max_devices=100) as servers,
    ):
        yield Environment(servers, browser)


async def register(tab: FirefoxTab, user: str) -> str:
    """Sign in, wait until the page is registered, and return the SIP URI."""
    await tab.wait_for("document.querySelector('#sign-in-button').disabled === false")
    await tab.evaluate(f"document.querySelector('#user').value = '{user}'")
    await tab.evaluate("document.querySelector('#sign-in-button').click()")
    await tab.wait_for("document.querySelector('#lamp').dataset.state === 'ready'")
    return str(await tab.evaluate("document.querySelector('#sip-uri').textContent"))


async def dial(tab: FirefoxTab, sip_uri: str) -> None:
    await tab.evaluate(f"document.querySelector('#to').value = '{sip_uri}'")
    await tab.evaluate("document.querySelector('#dial button').click()")


async def press(tab: FirefoxTab, name: str) -> None:
    button = f"[...document.querySelectorAll('.call button')].find((e) => e.textContent === '{name}')"
    await tab.wait_for(button)
    await tab.evaluate(f"{button}.click()")


async def call(caller: FirefoxTab, called: FirefoxTab, sip_uri: str) -> None:
    """Call, answer, and wait until both tabs talk."""
    await dial(caller, sip_uri)
    await press(called, "Answer")
    for tab in (caller, called):
        await tab.wait_for("document.querySelector('.call[data-state=active]')")


async def wait_until_received(tab: FirefoxTab, count: int) -> None:
    """Wait until the current call has received more than this number of bytes from now on."""
    received = f"({RECEIVED_BYTES})()"
    limit = await tab.evaluate(received) + count
    deadline = time.monotonic() + WAIT_SECONDS
    while await tab.evaluate(received) <= limit:
        assert time.monotonic() < deadline, "no media"
        await asyncio.sleep(0.1)


async def test_signed_in_page_registers_and_logs_out(environment: Environment) -> None:
    tab = await environment.softphone()
    uri = await register(tab, "alice")
    await eventually(lambda: environment.registrations() == [uri.removeprefix("sip:").split("@")[0]], WAIT_SECONDS)

    await tab.evaluate("document.querySelector('#logout').click()")
    await tab.wait_for("document.querySelector('#lamp').dataset.state === 'logged_out'")

    await eventually(lambda: environment.registrations() == [], WAIT_SECONDS)
    await tab.close()


async def test_two_users_call_each_other_talk_and_hang_up(environment: Environment) -> None:
    alice, bob = await environment.softphone(), await environment.softphone()
    await register(alice, "alice")
    await call(alice, bob, await register(bob, "bob"))

    await asyncio.gather(wait_until_received(alice, 1000), wait_until_received(bob, 1000))

    await press(bob, "Hang up")
    for tab in (alice, bob):
        await tab.wait_for("document.querySelector('.call') === null")
        await tab.close()


async def test_token_refresh_does_not_interrupt_a_call(environment: Environment) -> None:
    account, exchange = environment.servers.telnyx.sandbox.account, environment.servers.telnyx.sandbox.exchange
    account.token_life = timedelta(seconds=8)
    try:
        alice, bob = await environment.softphone(), await environment.softphone()
        await register(alice, "alice")
        await call(alice, bob, await register(bob, "bob"))
        logins = exchange.logins

        await eventually(lambda: exchange.logins >= logins + 2, WAIT_SECONDS)

        await wait_until_received(alice, 10_000)
        assert await alice.evaluate("document.querySelector('#lamp').dataset.state") == "ready"
        assert await alice.evaluate("document.querySelector('.call').dataset.state") == "active"
        await alice.close()
        await bob.close()
    finally:
        account.token_life = timedelta(hours=24)


async def test_reload_keeps_the_device_and_a_duplicated_tab_gets_its_own(environment: Environment) -> None:
    tab = await environment.softphone()
    uri = await register(tab, "alice")

    duplicate = await tab.duplicate()
    assert await duplicate.evaluate(STORED) == await tab.evaluate(STORED) != "{}"
    twin = await register(duplicate, "alice")
    await duplicate.close()
    await tab.reload()

    assert await register(tab, "alice") == uri
    assert twin != uri
    await tab.close()


async def test_page_that_slept_past_the_expiry_recovers(environment: Environment) -> None:
    """The processes of the pages are stopped and disconnected, and the login token has expired when they resume."""
    telnyx = environment.servers.telnyx.sandbox
    telnyx.account.token_life = timedelta(seconds=5)
    try:
        tab = await environment.softphone()
        username = (await register(tab, "alice")).removeprefix("sip:").split("@")[0]
        processes = environment.browser.page_processes()
        assert processes

        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            await telnyx.exchange.cut(username)
            await asyncio.sleep(7)
            assert environment.registrations() == []
        finally:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        await eventually(lambda: environment.registrations() == [username], WAIT_SECONDS)
        await tab.wait_for("document.querySelector('#lamp').dataset.state === 'ready'")
        await tab.close()
    finally:
        telnyx.account.token_life = timedelta(hours=24)


# -- React 19 in StrictMode -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory, environment: Environment) -> str:
    return bundle_react_page(tmp_path_factory.mktemp("bundle"))


@asynccontextmanager
async def react_tab(environment: Environment, script: str, user: str) -> AsyncIterator[FirefoxTab]:
    """The softphone's page, into which the script is loaded. The softphone itself does nothing without a sign-in."""
    tab = await environment.browser.profile_tab()
    await tab.run_in_each_page(await react_script(environment.servers, script, user))
    await tab.goto(environment.servers.url)
    yield tab
    await tab.evaluate("unmount()")
    await eventually(lambda: environment.registrations() == [], WAIT_SECONDS)
    await tab.close()


async def mount(tab: FirefoxTab, component: str) -> None:
    """Mount the component, unless the browser has restored the page with it."""
    await tab.evaluate(f"document.querySelector('#status') ?? mount('{component}')")


async def wait_until_ready(tab: FirefoxTab) -> None:
    await tab.wait_for("document.querySelector('#status')?.dataset.state === 'ready'")


@pytest.mark.parametrize("component", COMPONENTS)
async def test_mounts_and_unmounts_are_one_device(environment: Environment, script: str, component: str) -> None:
    before = len(environment.servers.telnyx.live())
    async with react_tab(environment, script, "alice") as tab:
        for number in range(ROUNDS):
            await mount(tab, component)
            await asyncio.sleep(0.02 * (number % 5))  # before, during and after the request
            await tab.evaluate("unmount()")
        await mount(tab, component)
        await wait_until_ready(tab)

        assert len(environment.servers.telnyx.live()) == before + 1
        assert len(environment.registrations()) == 1


@pytest.mark.parametrize("component", COMPONENTS)
async def test_reloads_and_navigations_are_one_device(environment: Environment, script: str, component: str) -> None:
    before = len(environment.servers.telnyx.live())
    async with react_tab(environment, script, "bob") as tab:
        for number in range(6):
            await mount(tab, component)
            if number % 2:
                await wait_until_ready(tab)
            await tab.reload()
        for _ in range(3):
            await mount(tab, component)
            await wait_until_ready(tab)
            await tab.goto(f"{environment.servers.url}/?other")
            await tab.back()
        await mount(tab, component)
        await wait_until_ready(tab)

        assert len(environment.servers.telnyx.live()) == before + 1
        await eventually(lambda: len(environment.registrations()) == 1)

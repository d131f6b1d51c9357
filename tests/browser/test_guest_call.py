"""A guest without an account calls a signed-in user from the softphone page, with a grant of the page's backend."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.browser import BrowserEnvironment, browser_environment

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserEnvironment]:
    async with browser_environment(tmp_path_factory.mktemp("browser"), has_guests=True) as made:
        yield made


async def test_guest_calls_a_signed_in_user(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one, environment.profile() as two:
        guest, alice = await environment.tab(one), await environment.tab(two)
        alices = await alice.register("alice")
        await guest.register("guest")

        await guest.dial(alices)
        await alice.wait_for_call("ringing")
        await alice.press("Answer")

        await asyncio.gather(guest.wait_for_call("active"), alice.wait_for_call("active"))
        await alice.wait_until_received(1000)
        await guest.press("Hang up")
        await alice.wait_until_call_is_over()
        assert (guest.errors, alice.errors) == ([], [])


async def test_guest_keeps_the_login_after_a_reload(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        uri = await tab.register("guest")
        await tab.page.reload()

        assert await tab.register("guest") == uri


async def test_guest_with_a_revoked_grant_registers_with_a_new_grant(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        uri = await tab.register("guest")
        await environment.service.components.grants.revoker.revoke_all(None)

        await tab.page.evaluate("softphone.phone.refresh()")

        await tab.page.wait_for_function("(uri) => softphone.phone.sipUri !== uri", arg=uri)
        await tab.wait_for_state("ready")

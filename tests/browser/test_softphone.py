"""The softphone page in a real browser with the unmodified SDK: two tabs call each other without a Telnyx account."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Route
from websockets.asyncio.client import connect

from tests.support.browser import WAIT_SECONDS, BrowserEnvironment, browser_environment
from tests.support.waiting import eventually

ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserEnvironment]:
    async with browser_environment(tmp_path_factory.mktemp("browser"), max_devices=100) as made:
        yield made


@pytest.fixture(autouse=True)
def _clear_faults(environment: BrowserEnvironment) -> None:
    """Every test starts without faults at Telnyx."""
    environment.telnyx.sandbox.faults.plans.clear()
    environment.telnyx.sandbox.account.token_life = timedelta(hours=24)


def registrations(environment: BrowserEnvironment) -> list[str]:
    return environment.telnyx.sandbox.exchange.registrations()


def username(sip_uri: str) -> str:
    return sip_uri.removeprefix("sip:").split("@")[0]


async def test_signed_in_page_registers_with_its_credential(environment: BrowserEnvironment) -> None:
    async with environment.profile() as alice:
        tab = await environment.tab(alice)
        await tab.screenshot("1-signed-out")
        uri = await tab.register("alice")
        await tab.page.click("#exchanges summary")
        await tab.screenshot("2-registered")

        await eventually(lambda: registrations(environment) == [username(uri)])
        assert tab.errors == []
        exchange = await tab.page.inner_text("#exchanges")
        assert "POST /v1/telephony-credentials" not in exchange  # the log shows method and path separately
        assert "201" in exchange
        assert "masked" in exchange
        assert "eyJ" not in await tab.page.content()


async def test_two_users_call_each_other_talk_and_hang_up(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one, environment.profile() as two:
        alice, bob = await environment.tab(one), await environment.tab(two)
        await alice.register("alice")
        bobs = await bob.register("bob")

        await alice.dial(bobs)
        await bob.wait_for_call("ringing")
        await bob.screenshot("3-ringing")
        await bob.press("Answer")
        await asyncio.gather(alice.wait_for_call("active"), bob.wait_for_call("active"))
        await alice.screenshot("4-active")
        await asyncio.gather(alice.wait_until_received(1000), bob.wait_until_received(1000))

        await alice.press("Mute")
        assert await alice.page.get_attribute(".call button:has-text('Mute')", "aria-pressed") == "true"
        await alice.press("Hold")
        await alice.wait_for_call("held")
        await alice.press("Hold")
        await alice.wait_for_call("active")
        await bob.press("Hang up")
        for tab in (alice, bob):
            await tab.wait_until_call_is_over()
            assert tab.errors == []


async def test_call_to_an_unknown_address_ends_with_the_reason(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        alice = await environment.tab(one)
        await alice.register("alice")
        states = await alice.record("call", '`${it.state} ${it.cause ?? ""}`')

        await alice.dial("sip:gencrednobody@sip.telnyx.com")

        await alice.wait_until_recorded(states, "hangup UNALLOCATED_NUMBER")
        await alice.wait_until_call_is_over()


async def test_token_refresh_does_not_interrupt_a_call(environment: BrowserEnvironment) -> None:
    environment.telnyx.sandbox.account.token_life = timedelta(seconds=8)
    async with environment.profile() as one, environment.profile() as two:
        alice, bob = await environment.tab(one), await environment.tab(two)
        await alice.register("alice")
        await alice.dial(await bob.register("bob"))
        await bob.wait_for_call("ringing")
        await bob.press("Answer")
        await alice.wait_for_call("active")
        logins = environment.telnyx.sandbox.exchange.logins

        await eventually(lambda: environment.telnyx.sandbox.exchange.logins >= logins + 2)

        await alice.wait_until_received(10_000)
        assert await alice.page.get_attribute("#lamp", "data-state") == "ready"
        await alice.wait_for_call("active")
        answers = await alice.page.locator("#exchanges summary").all_inner_texts()
        assert [text.split()[-1] for text in answers] == ["200"] * (len(answers) - 1) + ["201"]


async def test_page_that_slept_past_the_expiry_recovers(environment: BrowserEnvironment) -> None:
    """The renderer process is stopped and disconnected, and the login token has expired when it resumes."""
    environment.telnyx.sandbox.account.token_life = timedelta(seconds=5)
    async with environment.profile() as one:
        alice = await environment.tab(one)
        uri = await alice.register("alice")
        session = await environment.browser.new_browser_cdp_session()
        processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
        renderers = [int(process["id"]) for process in processes if process["type"] == "renderer"]
        assert renderers

        for pid in renderers:
            os.kill(pid, signal.SIGSTOP)
        try:
            await environment.telnyx.sandbox.exchange.cut(username(uri))
            await asyncio.sleep(7)
            assert registrations(environment) == []
        finally:
            for pid in renderers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        await eventually(lambda: registrations(environment) == [username(uri)], WAIT_SECONDS)
        await alice.wait_for_state("ready")


async def test_second_tab_of_a_user_is_another_device(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one, environment.profile() as two:
        first, second, bob = await environment.tab(one), await environment.tab(one), await environment.tab(two)
        uris = [await first.register("alice"), await second.register("alice")]
        await bob.register("bob")

        assert len(set(uris)) == 2
        assert {username(uri) for uri in uris} <= set(registrations(environment))
        for tab, uri in zip((first, second), uris, strict=True):
            await bob.dial(uri)
            await tab.wait_for_call("ringing")
            await tab.press("Decline")
            await bob.wait_until_call_is_over()


async def test_reload_keeps_the_device_and_a_duplicated_tab_gets_its_own(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        uri = await tab.register("alice")
        async with one.expect_page() as opened:
            await tab.page.evaluate("window.open(location.href)")
        duplicate = type(tab)(await opened.value)
        await duplicate.page.wait_for_load_state()

        twin = await duplicate.register("alice")
        await duplicate.page.close()
        await tab.page.reload()
        again = await tab.register("alice")

        assert twin != uri
        assert again == uri


async def test_logged_out_page_cannot_reconnect_with_its_old_token(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        async with tab.page.expect_response(lambda answer: answer.url.endswith("telephony-credentials")) as vended:
            await tab.sign_in("alice")
        token = (await (await vended.value).json())["login_token"]
        await tab.wait_for_state("ready")
        uri = await tab.sip_uri()
        live = len(environment.telnyx.live())

        await tab.page.click("#logout")
        await tab.wait_for_state("logged_out")
        await tab.screenshot("5-logged-out")

        assert len(environment.telnyx.live()) == live - 1
        await eventually(lambda: username(uri) not in registrations(environment))
        async with connect(environment.telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
            await socket.send(json.dumps({"id": 1, "method": "login", "params": {"login_token": token}}))
            assert json.loads(await socket.recv())["error"]["code"] == -32001


async def test_device_revoked_by_another_client_gets_a_new_identity(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        uri = await tab.register("alice")
        states = await tab.record("state", "it")

        await tab.page.click("#revoke")
        await tab.wait_until_recorded(states, "reconnecting")
        await tab.screenshot("6-revoked")
        await tab.wait_until_recorded(states, "ready")

        assert await tab.sip_uri() != uri
        await eventually(lambda: username(uri) not in registrations(environment))


# -- failures that a page can meet ------------------------------------------------------------------------------------


async def test_page_reports_a_network_outage_and_recovers(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.page.route("**/v1/telephony-credentials", lambda route: route.abort())
        await tab.sign_in("alice")

        assert "There is no network connection" in await tab.error()
        await tab.screenshot("7-no-network")
        await tab.page.unroute("**/v1/telephony-credentials")
        await tab.wait_for_state("ready")
        assert await tab.page.is_hidden("#error")


async def test_telnyx_outage_is_explained_and_the_page_recovers(environment: BrowserEnvironment) -> None:
    environment.telnyx.fail("status", method="POST", path="telephony_credentials$", status=503, times=100)
    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.sign_in("alice")

        assert "The phone network is unavailable. Trying again" in await tab.error()
        assert await tab.page.is_hidden("#dial")
        assert await tab.page.is_hidden("#acts")
        await tab.screenshot("8-telnyx-away")
        environment.telnyx.sandbox.faults.plans.clear()
        await tab.wait_for_state("ready")


async def test_page_retries_after_a_429(environment: BrowserEnvironment) -> None:
    answered = 0
    has_seen_the_error = asyncio.Event()

    async def slow_down(route: Route) -> None:
        nonlocal answered
        answered += 1
        if answered > 1 or route.request.method == "OPTIONS":
            await has_seen_the_error.wait()
            await route.continue_()
            return
        headers = ANY_ORIGIN | {"Retry-After": "1", "Access-Control-Expose-Headers": "Retry-After"}
        await route.fulfill(status=429, headers=headers, body="slow down")

    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.page.route("**/v1/telephony-credentials", slow_down)
        await tab.sign_in("alice")

        assert "could not be set up" in await tab.error()
        has_seen_the_error.set()
        await tab.wait_for_state("ready")


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ({"ttl_seconds": -100}, "Your session has ended. Please sign in again."),
        ({"audience": "another service"}, "Your session has ended. Please sign in again."),
        (None, "Please sign in first."),
    ],
    ids=["expired", "for another service", "malformed"],
)
async def test_invalid_token_is_explained(
    environment: BrowserEnvironment, token: dict[str, Any] | None, sentence: str
) -> None:
    async def other_token(route: Route) -> None:
        if token is None:
            await route.fulfill(json={"access_token": "", "expires_in": 600}, headers=ANY_ORIGIN)
            return
        asked = json.loads(route.request.post_data or "{}") | token
        await route.continue_(post_data=json.dumps(asked))

    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.page.route("**/token", other_token)
        await tab.sign_in("alice")

        assert sentence in await tab.error()
        await tab.wait_for_state("failed")
        assert await tab.page.is_enabled("#sign-in-button")


async def test_denial_by_policy_is_explained(tmp_path: Path) -> None:
    async with (
        browser_environment(tmp_path, max_devices=1, at_device_limit="reject") as strict,
        strict.profile() as one,
    ):
        first, second = await strict.tab(one), await strict.tab(one)
        await first.register("alice")
        await second.sign_in("alice")

        assert "too many devices" in await second.error()
        assert "device_limit_reached" in await second.error()
        assert await second.page.is_hidden("#acts")
        await second.screenshot("9-policy")


async def test_sip_username_and_password_register(tmp_path: Path) -> None:
    """`grant=sip_password` returns the field names of the SDK."""
    async with browser_environment(tmp_path, sip_password=True) as lenient, lenient.profile(bypass_csp=True) as one:
        tab = await lenient.tab(one)
        async with httpx.AsyncClient(trust_env=False) as client:
            config = (await client.get(f"{lenient.url}/config.json")).json()
            bearer = (await client.post(f"{config['identity']}/token", json={"user": "bob"})).json()["access_token"]
            answer = await client.post(
                f"{lenient.service.url}/v1/telephony-credentials",
                headers={"Authorization": f"Bearer {bearer}"},
                json={"device_id": "desk", "grant": "sip_password"},
            )
        body = answer.json()
        await asyncio.sleep(0.4)
        await tab.page.evaluate(
            """async ({ login, password, rtc }) => {
              const { TelnyxRTC } = await import("/sdk.js");
              const client = new TelnyxRTC({ login, password, ...rtc, iceServers: [] });
              await new Promise((resolve) => { client.on("telnyx.ready", resolve); client.connect(); });
            }""",
            body,
        )

        assert registrations(lenient) == [body["sip_username"]] == [body["login"]]


# -- accessibility and docs -------------------------------------------------------------------------------------------


async def test_page_is_usable_with_the_keyboard(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.page.keyboard.press("Tab")
        await tab.page.keyboard.type("bob")
        await tab.page.keyboard.press("Tab")
        await tab.page.keyboard.press("Enter")
        await tab.wait_for_state("ready")
        calls = await tab.record("call", "it.options.destinationNumber")
        await tab.page.focus("#to")
        await tab.page.keyboard.type("sip:gencrednobody@sip.telnyx.com")
        await tab.page.keyboard.press("Enter")
        await tab.wait_until_recorded(calls, "sip:gencrednobody@sip.telnyx.com")

        unlabelled = await tab.page.evaluate(
            """() => [...document.querySelectorAll("input, select, button")]
                 .filter((e) => !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).length"""
        )
        assert unlabelled == 0


async def test_page_is_readable_in_dark_mode_and_on_a_phone(environment: BrowserEnvironment) -> None:
    for scheme, width in (("dark", 1280), ("light", 360)):
        size: Any = {"width": width, "height": 800}
        async with environment.profile(color_scheme=scheme, viewport=size) as one:
            tab = await environment.tab(one)
            await tab.register("alice")
            await tab.screenshot(f"10-{scheme}-{width}")
            too_wide = await tab.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not too_wide


async def test_docs_authorize_and_try_it_out_work(environment: BrowserEnvironment) -> None:
    """The OpenAPI page with its Authorize button, without third-party resources."""
    async with environment.profile() as one:
        page = await one.new_page()
        await page.goto(f"{environment.service.url}/docs")
        await page.click("button.authorize")
        await page.fill(".modal-ux input", "not-a-token")
        await page.click(".modal-ux button.authorize")
        await page.click(".modal-ux button.btn-done")
        await page.click("#operations-Telephony_credentials-listDevices")
        await page.click("button.execute")
        await page.wait_for_selector(".live-responses-table tbody .response-col_status")

        assert "401" in await page.inner_text(".live-responses-table tbody .response-col_status")

"""Two browser tabs, one call, no Telnyx account: the whole way in a real browser, with the untouched SDK."""

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

from tests.browser.stand import Stand, stand
from tests.stage import eventually

ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    async with stand(tmp_path_factory.mktemp("stand"), max_devices=100) as made:
        yield made


@pytest.fixture(autouse=True)
def _calm(stage: Stand) -> None:
    """Every test begins with a Telnyx that behaves."""
    stage.telnyx.sandbox.faults.plans.clear()
    stage.telnyx.sandbox.account.token_life = timedelta(hours=24)


def registrations(stage: Stand) -> list[str]:
    return stage.telnyx.sandbox.exchange.registrations()


def username(sip_uri: str) -> str:
    return sip_uri.removeprefix("sip:").split("@")[0]


async def test_a_signed_in_page_registers_on_a_credential_that_dialtone_vended(stage: Stand) -> None:
    async with stage.person() as alice:
        tab = await stage.tab(alice)
        await tab.shoot("1-signed-out")
        uri = await tab.registered("alice")
        await tab.page.click("#exchanges summary")
        await tab.shoot("2-registered")

        assert registrations(stage) == [username(uri)]
        assert tab.complaints == []
        exchange = await tab.page.inner_text("#exchanges")
        assert "POST /v1/telephony-credentials" not in exchange  # the line shows method and path apart
        assert "201" in exchange
        assert "masked" in exchange
        assert "eyJ" not in await tab.page.content()


async def test_two_users_call_each_other_talk_and_hang_up(stage: Stand) -> None:
    async with stage.person() as one, stage.person() as two:
        alice, bob = await stage.tab(one), await stage.tab(two)
        await alice.registered("alice")
        bobs = await bob.registered("bob")

        await alice.dial(bobs)
        await bob.call_is("ringing")
        await bob.shoot("3-ringing")
        await bob.press("Answer")
        await asyncio.gather(alice.call_is("active"), bob.call_is("active"))
        await alice.shoot("4-active")
        before = [await alice.received_bytes(), await bob.received_bytes()]
        await asyncio.sleep(1.5)
        after = [await alice.received_bytes(), await bob.received_bytes()]
        assert all(later > earlier + 1000 for earlier, later in zip(before, after, strict=True)), (before, after)

        await alice.press("Mute")
        assert await alice.page.get_attribute(".call button:has-text('Mute')", "aria-pressed") == "true"
        await alice.press("Hold")
        await alice.call_is("held")
        await alice.press("Hold")
        await alice.call_is("active")
        await bob.press("Hang up")
        for tab in (alice, bob):
            await tab.page.wait_for_selector(".call", state="detached", timeout=10_000)
            assert tab.complaints == []


async def test_a_call_to_nobody_ends_with_the_reason(stage: Stand) -> None:
    async with stage.person() as one:
        alice = await stage.tab(one)
        await alice.registered("alice")
        states = await alice.page.evaluate_handle(
            """() => {
              const seen = [];
              softphone.phone.on("call", (call) => seen.push(`${call.state} ${call.cause ?? ""}`));
              return seen;
            }"""
        )

        await alice.dial("sip:gencrednobody@sip.telnyx.com")

        await alice.page.wait_for_selector(".call", state="detached", timeout=10_000)
        assert "hangup UNALLOCATED_NUMBER" in await states.json_value()


async def test_the_token_is_refreshed_on_the_live_socket_and_the_call_goes_on(stage: Stand) -> None:
    stage.telnyx.sandbox.account.token_life = timedelta(seconds=8)
    async with stage.person() as one, stage.person() as two:
        alice, bob = await stage.tab(one), await stage.tab(two)
        await alice.registered("alice")
        await alice.dial(await bob.registered("bob"))
        await bob.call_is("ringing")
        await bob.press("Answer")
        await alice.call_is("active")
        logins = stage.telnyx.sandbox.exchange.logins
        talked = await alice.received_bytes()

        await asyncio.sleep(10)

        assert stage.telnyx.sandbox.exchange.logins >= logins + 2
        assert await alice.received_bytes() > talked + 10_000
        assert await alice.page.get_attribute("#lamp", "data-state") == "ready"
        await alice.call_is("active")
        answers = await alice.page.locator("#exchanges summary").all_inner_texts()
        assert [text.split()[-1] for text in answers] == ["200"] * (len(answers) - 1) + ["201"]


async def test_a_page_that_slept_past_the_expiry_comes_back_by_itself(stage: Stand) -> None:
    """Its process is really stopped, its line cut meanwhile, and the credential's token has run out when it wakes."""
    stage.telnyx.sandbox.account.token_life = timedelta(seconds=5)
    async with stage.person() as one:
        alice = await stage.tab(one)
        uri = await alice.registered("alice")
        session = await stage.browser.new_browser_cdp_session()
        processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
        renderers = [int(process["id"]) for process in processes if process["type"] == "renderer"]
        assert renderers

        for pid in renderers:
            os.kill(pid, signal.SIGSTOP)
        try:
            await stage.telnyx.sandbox.exchange.cut(username(uri))
            await asyncio.sleep(7)
            assert registrations(stage) == []
        finally:
            for pid in renderers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        await eventually(lambda: registrations(stage) == [username(uri)], 15)
        await alice.becomes("ready")


async def test_another_tab_of_the_same_user_is_another_device(stage: Stand) -> None:
    async with stage.person() as one, stage.person() as two:
        first, second, bob = await stage.tab(one), await stage.tab(one), await stage.tab(two)
        uris = [await first.registered("alice"), await second.registered("alice")]
        await bob.registered("bob")

        assert len(set(uris)) == 2
        assert {username(uri) for uri in uris} <= set(registrations(stage))
        for tab, uri in zip((first, second), uris, strict=True):
            await bob.dial(uri)
            await tab.call_is("ringing")
            await tab.press("Decline")
            await bob.page.wait_for_selector(".call", state="detached", timeout=10_000)


async def test_a_reload_keeps_the_device_and_a_duplicated_tab_gets_its_own(stage: Stand) -> None:
    async with stage.person() as one:
        tab = await stage.tab(one)
        uri = await tab.registered("alice")
        async with one.expect_page() as opened:
            await tab.page.evaluate("window.open(location.href)")
        duplicate = type(tab)(await opened.value)
        await duplicate.page.wait_for_load_state()

        twin = await duplicate.registered("alice")
        await duplicate.page.close()
        await tab.page.reload()
        again = await tab.registered("alice")

        assert twin != uri
        assert again == uri


async def test_a_logged_out_page_cannot_come_back_with_what_it_had(stage: Stand) -> None:
    async with stage.person() as one:
        tab = await stage.tab(one)
        async with tab.page.expect_response(lambda answer: answer.url.endswith("telephony-credentials")) as vended:
            await tab.sign_in("alice")
        token = (await (await vended.value).json())["login_token"]
        await tab.becomes("ready")
        uri = await tab.sip_uri()
        live = len(stage.telnyx.live())

        await tab.page.click("#logout")
        await tab.becomes("logged_out")
        await tab.shoot("5-logged-out")

        assert username(uri) not in registrations(stage)
        assert len(stage.telnyx.live()) == live - 1
        async with connect(stage.telnyx.url.replace("http", "ws").removesuffix("/v2"), proxy=None) as socket:
            await socket.send(json.dumps({"id": 1, "method": "login", "params": {"login_token": token}}))
            assert json.loads(await socket.recv())["error"]["code"] == -32001


async def test_a_device_that_is_revoked_elsewhere_falls_and_gets_a_new_identity(stage: Stand) -> None:
    async with stage.person() as one:
        tab = await stage.tab(one)
        uri = await tab.registered("alice")

        await tab.page.click("#revoke")
        await tab.becomes("reconnecting")
        await tab.shoot("6-revoked")
        await tab.becomes("ready", 30)

        assert await tab.sip_uri() != uri
        assert username(uri) not in registrations(stage)


# -- what a page can meet ---------------------------------------------------------------------------------------------


async def test_without_a_network_the_page_says_so_and_recovers(stage: Stand) -> None:
    async with stage.person() as one:
        tab = await stage.tab(one)
        await tab.page.route("**/v1/telephony-credentials", lambda route: route.abort())
        await tab.sign_in("alice")

        assert "There is no connection" in await tab.error()
        await tab.shoot("7-no-network")
        await tab.page.unroute("**/v1/telephony-credentials")
        await tab.becomes("ready")
        assert await tab.page.is_hidden("#error")


async def test_a_telnyx_that_is_away_is_a_503_that_a_person_understands_and_passes(stage: Stand) -> None:
    stage.telnyx.fail("status", method="POST", path="telephony_credentials$", status=503)
    async with stage.person() as one:
        tab = await stage.tab(one)
        await tab.sign_in("alice")

        assert "The phone network does not answer. Trying again" in await tab.error()
        assert await tab.page.is_hidden("#dial")
        assert await tab.page.is_hidden("#acts")
        await tab.shoot("8-telnyx-away")
        await tab.becomes("ready", 30)


async def test_a_429_on_the_way_is_waited_out(stage: Stand) -> None:
    answered = 0

    async def slow_down(route: Route) -> None:
        nonlocal answered
        answered += 1
        if answered > 1 or route.request.method == "OPTIONS":
            await route.continue_()
            return
        headers = ANY_ORIGIN | {"Retry-After": "1", "Access-Control-Expose-Headers": "Retry-After"}
        await route.fulfill(status=429, headers=headers, body="slow down")

    async with stage.person() as one:
        tab = await stage.tab(one)
        await tab.page.route("**/v1/telephony-credentials", slow_down)
        await tab.sign_in("alice")

        assert "could not be set up" in await tab.error()
        await tab.becomes("ready")


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ({"ttl_seconds": -100}, "Your session has ended. Please sign in again."),
        ({"audience": "another service"}, "Your session has ended. Please sign in again."),
        (None, "Please sign in first."),
    ],
    ids=["expired", "for another service", "none"],
)
async def test_a_token_that_is_no_good_is_said_in_a_sentence(
    stage: Stand, token: dict[str, Any] | None, sentence: str
) -> None:
    async def other_token(route: Route) -> None:
        if token is None:
            await route.fulfill(json={"access_token": "", "expires_in": 600}, headers=ANY_ORIGIN)
            return
        asked = json.loads(route.request.post_data or "{}") | token
        await route.continue_(post_data=json.dumps(asked))

    async with stage.person() as one:
        tab = await stage.tab(one)
        await tab.page.route("**/token", other_token)
        await tab.sign_in("alice")

        assert sentence in await tab.error()
        await tab.becomes("failed")
        assert await tab.page.is_enabled("#sign-in-button")


async def test_a_policy_that_says_no_is_said_in_a_sentence(tmp_path: Path) -> None:
    async with stand(tmp_path, max_devices=1) as strict, strict.person() as one:
        first, second = await strict.tab(one), await strict.tab(one)
        await first.registered("alice")
        await second.sign_in("alice")

        assert "too many places" in await second.error()
        assert "device_limit_reached" in await second.error()
        assert await second.page.is_hidden("#acts")
        await second.shoot("9-policy")


async def test_a_classic_login_and_password_register_too(tmp_path: Path) -> None:
    """`grant=sip_password` answers in the SDK's own names."""
    async with stand(tmp_path, sip_password=True) as lenient, lenient.person(bypass_csp=True) as one:
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


# -- for everybody ----------------------------------------------------------------------------------------------------


async def test_the_page_can_be_used_with_the_keyboard_alone(stage: Stand) -> None:
    async with stage.person() as one:
        tab = await stage.tab(one)
        await tab.page.keyboard.press("Tab")
        await tab.page.keyboard.type("bob")
        await tab.page.keyboard.press("Tab")
        await tab.page.keyboard.press("Enter")
        await tab.becomes("ready")
        await tab.page.focus("#to")
        await tab.page.keyboard.type("sip:gencrednobody@sip.telnyx.com")
        await tab.page.keyboard.press("Enter")
        await tab.page.wait_for_selector(".call")

        unlabelled = await tab.page.evaluate(
            """() => [...document.querySelectorAll("input, select, button")]
                 .filter((e) => !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).length"""
        )
        assert unlabelled == 0


async def test_the_page_is_legible_in_the_dark_and_on_a_phone(stage: Stand) -> None:
    for scheme, width in (("dark", 1280), ("light", 360)):
        size: Any = {"width": width, "height": 800}
        async with stage.person(color_scheme=scheme, viewport=size) as one:
            tab = await stage.tab(one)
            await tab.registered("alice")
            await tab.shoot(f"10-{scheme}-{width}")
            too_wide = await tab.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not too_wide


async def test_docs_authorize_and_try_it_out_work(stage: Stand) -> None:
    """The OpenAPI page with its Authorize button, from this machine alone."""
    async with stage.person() as one:
        page = await one.new_page()
        await page.goto(f"{stage.service.url}/docs")
        await page.click("button.authorize")
        await page.fill(".modal-ux input", "not-a-token")
        await page.click(".modal-ux button.authorize")
        await page.click(".modal-ux button.btn-done")
        await page.click("#operations-Telephony_credentials-page_v1_telephony_credentials_get")
        await page.click("button.execute")
        await page.wait_for_selector(".live-responses-table tbody .response-col_status")

        assert "401" in await page.inner_text(".live-responses-table tbody .response-col_status")

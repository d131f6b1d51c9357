"""Sessions at /ops: renewal, outages of the identity provider, accounts without rights, wrong clocks and sign-out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Route, expect

from tests.support.ops_page import CLIENT_ID, OpsPage, ops_environment
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

POLICY = f"""
[[issuers]]
issuer = "IDENTITY"
audiences = ["dialtone"]
ops_client_id = "{CLIENT_ID}"

[[policy.rules]]
name = "all-users"
"""


@pytest.fixture
async def ops_page(tmp_path: Path) -> AsyncIterator[OpsPage]:
    async with ops_environment(tmp_path) as made:
        yield made


def token_requests(ops_page: OpsPage) -> int:
    return sum(request.url.endswith("/token") for request in ops_page.requests)


async def with_settings(ops_page: OpsPage, **changes: Any) -> None:
    """Change the settings that the page gets for the sign-in."""
    settings = (await ops_page.service.client.get("/ops/sign-in.json")).json() | changes
    await ops_page.page.route("**/sign-in.json", lambda route: route.fulfill(json=settings))


# -- renewal ----------------------------------------------------------------------------------------------------------


async def test_expired_token_is_renewed_without_a_page(ops_page: OpsPage) -> None:
    await ops_page.open()
    sent: list[str] = []

    async def reject_once(route: Route) -> None:
        sent.append((await route.request.all_headers())["authorization"])
        await (route.fulfill(status=401, json={}) if len(sent) == 1 else route.continue_())

    await ops_page.page.route("**/v1/admin/state", reject_once)
    await ops_page.page.click("#refresh")
    await eventually(lambda: len(sent) >= 2, 30)

    assert sent[1] != sent[0]
    assert token_requests(ops_page) == 2, "at the sign-in, and the renewal"
    updated = await ops_page.page.inner_text("#updated")
    await expect(ops_page.page.locator("#updated")).not_to_have_text(updated)
    assert await ops_page.page.is_hidden("#error")


async def test_ended_session_keeps_the_view_until_the_next_sign_in(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")
    await ops_page.open()
    await ops_page.find("bob")
    await ops_page.page.route("**/v1/admin/**", lambda route: route.fulfill(status=401, json={"code": "invalid_token"}))
    await ops_page.page.click("#refresh")

    assert "Your session has ended. Sign in again: the view is kept." in await ops_page.error()
    assert await ops_page.page.is_visible(".devices li")
    await ops_page.page.unroute("**/v1/admin/**")
    await ops_page.page.click("#error-action")
    await ops_page.page.click("button[value=alice]")
    await ops_page.wait_until_open()
    await expect(ops_page.page.locator(".devices li")).to_have_count(1)


async def test_session_survives_an_outage_of_the_identity_provider(ops_page: OpsPage) -> None:
    await ops_page.open()
    before = await ops_page.sent_bearer_token()
    expired = True

    async def reject_the_former_token(route: Route) -> None:
        sent = (await route.request.all_headers())["authorization"]
        await (route.fulfill(status=401, json={}) if expired and before in sent else route.continue_())

    await ops_page.page.route("**/v1/admin/**", reject_the_former_token)
    await ops_page.page.route("**/token", lambda route: route.fulfill(status=503, body="unavailable"))
    await ops_page.page.click("#refresh")

    assert "token endpoint sent no tokens and no error. (status 503)" in await ops_page.error()
    assert "The page retries." in await ops_page.error()
    assert await ops_page.page.is_visible("#board")
    await ops_page.page.unroute("**/token")
    await expect(ops_page.page.locator("#error")).to_be_hidden()
    assert await ops_page.sent_bearer_token() != before


async def test_short_lived_token_is_not_renewed_for_each_request(ops_page: OpsPage) -> None:
    await ops_page.page.clock.set_fixed_time(datetime.now(UTC))  # the token does not become due

    async def in_twenty_seconds(route: Route) -> None:
        answer = await (await route.fetch()).json()
        await route.fulfill(json=answer | {"expires_in": 20})

    await ops_page.page.route("**/token", in_twenty_seconds)
    await ops_page.open()
    for _ in range(3):
        async with ops_page.page.expect_response("**/v1/admin/state"):
            await ops_page.page.click("#refresh")

    assert token_requests(ops_page) == 1


async def test_answer_of_a_proxy_is_not_shown_as_data(ops_page: OpsPage) -> None:
    await ops_page.open()
    await ops_page.page.route("**/v1/admin/**", lambda route: route.fulfill(status=200, body="<h1>Log in</h1>"))
    await ops_page.page.click("#refresh")

    assert "The response is not one of Dialtone. (status 200) The page retries." in await ops_page.error()
    assert ops_page.errors == []


# -- accounts without rights ------------------------------------------------------------------------------------------


async def test_account_without_the_scope_can_be_changed(ops_page: OpsPage) -> None:
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=bob]")

    assert "This account is not an operator's. The token lacks the scope dialtone:admin." in await ops_page.error()
    assert "insufficient_scope" in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")
    await ops_page.page.click("#error-action:has-text('Sign out')")
    await ops_page.page.wait_for_selector("#provider:not([hidden])")
    assert any("/end_session?client_id" in request.url for request in ops_page.requests)
    await ops_page.sign_in("alice")


async def test_another_account_is_requested_if_the_provider_has_no_sign_out(ops_page: OpsPage) -> None:
    await with_settings(ops_page, end_session_endpoint=None)
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.click("#provider")
    await ops_page.page.click("button[value=bob]")
    await ops_page.error()
    await ops_page.page.click("#error-action:has-text('Sign in with another account')")
    await ops_page.page.wait_for_selector("button[value=alice]")

    assert parse_qs(urlsplit(ops_page.page.url).query)["prompt"] == ["select_account"]


async def test_account_that_the_policy_denies_is_explained(tmp_path: Path) -> None:
    async with ops_environment(tmp_path, file=POLICY) as ops_page:
        await ops_page.page.goto(ops_page.url)
        await ops_page.page.click("#provider")
        await ops_page.page.click("button[value=alice]")

        assert "The policy must have a rule with admin = true for this user. (access_denied" in await ops_page.error()


async def test_data_is_hidden_when_the_rights_are_withdrawn(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")
    await ops_page.open("#find=bob")
    problem = {"status": 403, "json": {"code": "access_denied"}}
    await ops_page.page.route("**/v1/admin/**", lambda route: route.fulfill(**problem))
    await ops_page.page.click("#refresh")

    assert "not an operator's" in await ops_page.error()
    assert await ops_page.page.is_hidden("#board")


async def test_denied_action_does_not_end_the_session(ops_page: OpsPage) -> None:
    await ops_page.open()
    problem = {"status": 403, "json": {"title": "The policy denies this.", "code": "access_denied"}}
    await ops_page.page.route("**/v1/admin/keys/refresh", lambda route: route.fulfill(**problem))
    await ops_page.page.click("#keys >> text=Fetch keys")

    assert "The policy denies this. (access_denied)" in await ops_page.error()
    assert await ops_page.page.is_visible("#board")


# -- clocks, text of users, and sign-out ------------------------------------------------------------------------------


async def test_wrong_clock_of_the_browser_changes_no_data(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")
    await ops_page.page.clock.set_system_time(datetime.now(UTC) + timedelta(hours=3))
    await ops_page.open("#range=15")

    await expect(ops_page.page.locator("#logins .legend")).to_contain_text("1 new devices")
    await expect(ops_page.page.locator("#audit")).to_contain_text("issued")


async def test_text_cannot_reverse_the_text_around_it(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")

    async def with_override(route: Route) -> None:
        answer = await (await route.fetch()).text()
        await route.fulfill(body=answer.replace('"laptop"', '"\\u202epotpal"'), content_type="application/json")

    await ops_page.page.route("**/v1/admin/leases?*", with_override)
    await ops_page.page.route("**/v1/admin/audit?*", with_override)
    await ops_page.open()
    await ops_page.find("bob")
    await expect(ops_page.page.locator("#audit tr").first).to_be_visible()

    assert "\\u202epotpal" in await ops_page.page.inner_text(".devices h4")
    assert "\u202e" not in await ops_page.page.inner_text("body")


async def test_page_of_an_ended_session_is_not_restored(ops_page: OpsPage) -> None:
    """Chromium keeps pages of a tab for its back button."""
    await ops_page.page.goto(ops_page.url)
    await ops_page.page.wait_for_selector("#provider:not([hidden])")
    async with ops_page.page.expect_navigation():
        await ops_page.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")


async def test_partly_failed_logout_says_what_was_done(ops_page: OpsPage) -> None:
    await ops_page.issue("bob", "laptop")
    await ops_page.open()
    await ops_page.find("bob")
    problem = {"status": 503, "json": {"title": "The ledger is unavailable.", "code": "ledger_unavailable"}}
    await ops_page.page.route("**/v1/admin/leases/*", lambda route: route.fulfill(**problem))
    await ops_page.page.click("text=Log out device")
    await ops_page.confirm()

    assert "Dialtone rejects earlier tokens of bob, but the device is not logged out." in await ops_page.error()
    assert "ledger_unavailable" in await ops_page.error()
    updated = await ops_page.page.inner_text("#updated")
    await expect(ops_page.page.locator("#updated")).not_to_have_text(updated)
    assert await ops_page.page.is_visible("#error"), "a refresh does not remove it"

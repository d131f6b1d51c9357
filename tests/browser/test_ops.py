"""The operators' page in a real browser: panels, search, audit filters, charts, and states of errors."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.policy import ADMIN_SCOPE
from tests.support.ops_page import OpsPage, ops_environment
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.signalling import open_page

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def ops_page(tmp_path: Path) -> AsyncIterator[OpsPage]:
    async with ops_environment(tmp_path, warm_pool_size=2) as made:
        for user, device in (("alice", "laptop"), ("alice", "tab"), ("bob", "laptop")):
            await made.issue(user, device)
        await made.issue("alice", "laptop")
        await made.issue("alice", "phone", grant="sip_password")
        await made.service.components.operators.leases.refresh_counts()
        await made.wait_until_audited()
        yield made


async def test_page_shows_leases_charts_and_status(ops_page: OpsPage) -> None:
    await ops_page.open()
    await expect(ops_page.page.locator("#audit tr").nth(4)).to_be_visible()

    summary = await ops_page.page.inner_text("#summary")
    assert "active leases\n3" in summary
    assert "closed" in await ops_page.page.inner_text("#telnyx")
    for entry in ("1 cached", "3 new devices"):
        await expect(ops_page.page.locator("#logins .legend")).to_contain_text(entry)
    await expect(ops_page.page.locator("#denials .legend")).to_contain_text("1 denied")
    assert "GrantNotAllowed" in await ops_page.page.inner_text("#audit")
    assert ops_page.identity_url in await ops_page.page.inner_text("#keys")
    assert "There are no rules" in await ops_page.page.inner_text("#policy-panel")
    assert ops_page.errors == []


async def test_operator_of_some_issuers_sees_no_panels_about_the_whole_service(ops_page: OpsPage) -> None:
    async def bind(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json=await answer.json() | {"visible_issuers": [ops_page.identity_url]})

    await ops_page.page.route("**/v1/admin/policy", bind)
    await ops_page.open()
    await expect(ops_page.page.locator("#audit tr").nth(4)).to_be_visible()

    for panel in ("status", "logins", "denials", "telnyx"):
        assert await ops_page.page.is_hidden(f"#{panel}-panel")
    assert not any(request.url.endswith("/state") or "/activity" in request.url for request in ops_page.requests)
    assert ops_page.errors == []


async def test_values_of_a_chart_are_shown_with_the_keyboard(ops_page: OpsPage) -> None:
    await ops_page.open()
    await expect(ops_page.page.locator("#logins .legend")).to_contain_text("3 new devices")
    chart = ops_page.page.locator("#logins .plot")
    assert await chart.locator("text").count() >= 8, "both axes have labels"
    await chart.focus()
    texts: dict[str, str] = {}
    for _ in range(5):
        minute, _, values = (await chart.get_attribute("aria-valuetext") or "").partition(": ")
        texts[minute] = values
        await ops_page.page.keyboard.press("ArrowLeft")

    # The logins may be in two minutes.
    shown = [re.fullmatch(r"(\d+) cached, (\d+) renewed, (\d+) new devices", text) for text in texts.values()]
    assert [sum(int(text[kind]) for text in shown if text) for kind in (1, 2, 3)] == [1, 0, 3]
    assert all(shown)
    assert "0 cached, 0 renewed, 0 new devices" in texts.values()
    await ops_page.page.keyboard.press("Home")
    assert await chart.get_attribute("aria-valuenow") == "1"


async def test_devices_are_found_by_sip_address_and_device_id(ops_page: OpsPage) -> None:
    await ops_page.open()
    await ops_page.find("bob")
    sip_uri = await ops_page.page.locator(".devices dd", has_text="sip:").inner_text()

    assert "bob" in await ops_page.find(sip_uri, by="sip_username")
    await ops_page.find("laptop", by="device_id")
    await expect(ops_page.page.locator(".user")).to_have_count(2)
    assert "find=laptop" in ops_page.page.url


async def test_presence_of_devices_is_checked_on_demand(ops_page: OpsPage) -> None:
    laptop = LeaseCriteria(subject="alice", device_id="laptop")
    lease = (await ops_page.service.components.operators.leases.search(laptop, None, 1))[0]
    async with open_page(ops_page.telnyx) as tab:
        await tab.ask("login", login_token=ops_page.telnyx.sandbox.account.mint_token(str(lease.credential_id)))
        await ops_page.open("#find=alice")
        await expect(ops_page.page.locator(".devices > li")).to_have_count(2)
        assert "online" not in await ops_page.page.inner_text("#found")

        await ops_page.page.click('button[data-key^="presence "]')

        await expect(ops_page.page.locator(".devices > li", has_text="laptop")).to_contain_text("yes, checked")
        await expect(ops_page.page.locator(".devices > li", has_text="tab")).to_contain_text("no, checked")
    assert ops_page.errors == []


async def test_unknown_user_has_an_explanation(ops_page: OpsPage) -> None:
    await ops_page.open()

    assert "The ledger has no lease of this user" in await ops_page.find("mallory")
    assert "No live device for the user mallory" in await ops_page.page.inner_text("#search-result")


async def test_labels_are_escaped(ops_page: OpsPage) -> None:
    await ops_page.issue("carol", "laptop", label="<img src=x onerror=alert(1)>")
    await ops_page.open()

    assert "<img src=x" in await ops_page.find("carol")
    assert await ops_page.page.locator("img").count() == 0
    assert ops_page.errors == []


async def test_audit_is_filtered_and_the_filter_is_in_the_url(ops_page: OpsPage) -> None:
    await ops_page.open()
    await expect(ops_page.page.locator("#audit tr").nth(4)).to_be_visible()
    await ops_page.page.select_option("#action", "issued")
    await ops_page.page.fill("#user", "bob")
    await ops_page.page.select_option("#range", "60")
    await ops_page.page.click("#filters button[type=submit]")

    await expect(ops_page.page.locator("#audit tr")).to_have_count(1)
    assert "bob" in await ops_page.page.inner_text("#audit")
    for part in ("range=60", "action=issued", "user=bob"):
        assert part in ops_page.page.url
    await ops_page.page.select_option("#action", "swept")
    await ops_page.page.click("#filters button[type=submit]")
    await expect(ops_page.page.locator("#audit-result")).to_have_text("No event matches these filters.")
    await ops_page.page.click("#clear")
    await expect(ops_page.page.locator("#audit tr").nth(4)).to_be_visible()


async def test_audit_range_is_in_the_chosen_time_zone(ops_page: OpsPage) -> None:
    await ops_page.open("#range=custom&since=2020-01-01T00:00:00&until=2020-07-01T00:00:00")
    queries = [request.url for request in ops_page.requests if "/v1/admin/audit" in request.url]
    assert "since=2019-12-31T23%3A00%3A00.000Z" in queries[-1]
    assert "until=2020-06-30T22%3A00%3A00.000Z" in queries[-1]

    async with ops_page.page.expect_request(lambda request: "since=2020-01-01T00%3A00%3A00.000Z" in request.url):
        await ops_page.page.select_option("#zone", "utc")
    await expect(ops_page.page.locator("th").first).to_have_text("Time (UTC)")


async def test_older_audit_events_are_loaded_by_page(ops_page: OpsPage) -> None:
    for number in range(60):
        await ops_page.issue("carol", f"device-{number % 9}", grant="sip_password")
    await ops_page.wait_until_audited()
    await ops_page.open()
    await expect(ops_page.page.locator("#audit tr")).to_have_count(50)

    await ops_page.page.click("#older")

    await expect(ops_page.page.locator("#audit tr")).to_have_count(65)
    await expect(ops_page.page.locator("#audit-result")).to_contain_text("not updated while you read")
    await ops_page.page.click("#newest")
    await expect(ops_page.page.locator("#audit tr")).to_have_count(50)


async def test_refresh_keeps_the_focus_and_the_text_of_the_form(ops_page: OpsPage) -> None:
    await ops_page.open()
    await ops_page.find("alice")
    await ops_page.page.focus(".devices li:has-text('tab') button")
    await ops_page.issue("alice", "new-device")
    await expect(ops_page.page.locator(".devices li")).to_have_count(3)
    focused = "document.activeElement.getAttribute('aria-label')"
    assert await ops_page.page.evaluate(focused) == "Log out device tab of alice"

    await ops_page.page.fill("#user", "unfinished")
    updated = await ops_page.page.inner_text("#updated")
    await expect(ops_page.page.locator("#updated")).not_to_have_text(updated)
    assert await ops_page.page.input_value("#user") == "unfinished"


async def test_unavailable_service_is_shown_and_the_page_recovers(ops_page: OpsPage) -> None:
    await ops_page.open()
    await ops_page.page.route("**/v1/admin/**", lambda route: route.abort())

    assert "Dialtone does not answer. The page retries." in await ops_page.error()
    await expect(ops_page.page.locator("#updated")).to_contain_text("Not updated since")
    assert await ops_page.page.is_visible("#audit tr >> nth=0"), "the data stays visible"
    await ops_page.page.unroute("**/v1/admin/**")
    await expect(ops_page.page.locator("#updated")).to_contain_text("Updated at")
    await expect(ops_page.page.locator("#error")).to_be_hidden()


async def test_error_of_one_panel_leaves_the_others(ops_page: OpsPage) -> None:
    problem = {"title": "The ledger is unavailable.", "code": "ledger_unavailable"}
    await ops_page.page.route("**/v1/admin/audit?*", lambda route: route.fulfill(status=503, json=problem))
    await ops_page.open()

    await expect(ops_page.page.locator("#audit-panel .state")).to_contain_text("ledger_unavailable")
    assert "active leases\n3" in await ops_page.page.inner_text("#summary")
    assert await ops_page.page.is_hidden("#error")


async def test_page_is_usable_with_the_keyboard(ops_page: OpsPage) -> None:
    press = ops_page.page.keyboard.press
    await ops_page.page.goto(ops_page.url)
    await ops_page.enter_operator()
    await ops_page.wait_until_open()
    await ops_page.page.keyboard.type("bob")
    await press("Enter")
    await ops_page.page.wait_for_selector(".devices button")
    for _ in range(6):
        await press("Tab")
    await press("Enter")
    await ops_page.page.wait_for_selector("dialog[open]")
    assert await ops_page.page.evaluate("document.activeElement.value") == "no", "Enter cancels"
    await press("Tab")
    await press("Enter")

    await expect(ops_page.page.locator("#notice")).to_contain_text("logged out device laptop of bob")
    await expect(ops_page.page.locator("#search-result")).to_contain_text("No live device")


async def test_page_can_be_disabled(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, ops_page=False) as service:
        assert (await service.client.get("/ops")).status_code == 404


async def test_page_loads_no_third_party_resources(service: Service) -> None:
    page = await service.client.get("/ops")

    policy = page.headers["content-security-policy"]
    assert "script-src 'self'; style-src 'self'; connect-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in page.text
    assert (await service.client.get("/ops/../main.py")).status_code == 404
    assert (await service.client.get("/ops/__init__.py")).status_code == 404
    assert ADMIN_SCOPE in page.text


# -- widths, colours and accessibility --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "dark"), (1280, "light"), (1280, "dark")])
async def test_each_state_fits_and_has_no_findings_of_axe(tmp_path: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800}
    browser = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with ops_environment(tmp_path, browser=browser) as ops_page:
        await ops_page.issue("alice", "a" * 64, label="W" * 64)
        await ops_page.issue("bob", "laptop")
        found: dict[str, object] = {}

        async def check(state: str) -> None:
            await ops_page.screenshot(f"{state}-{width}-{scheme}")
            found[state] = (await ops_page.is_too_wide(), await ops_page.axe_findings())

        await ops_page.page.goto(ops_page.url)
        await ops_page.page.wait_for_selector("#provider:not([hidden])")
        await check("1-sign-in")
        await ops_page.enter("e30.e30.AAAA")
        await ops_page.error()
        await check("2-rejected")
        await ops_page.page.click("#provider")
        await ops_page.page.click("button[value=bob]")
        await expect(ops_page.page.locator("#error")).to_contain_text("not an operator")
        await check("8-denied")
        await ops_page.sign_in()
        await expect(ops_page.page.locator("#audit tr").nth(1)).to_be_visible()
        await check("3-board")
        await ops_page.find("alice")
        await check("4-found")
        await ops_page.page.click("text=Log out user")
        await ops_page.page.wait_for_selector("dialog[open]")
        await check("5-confirmation")
        await ops_page.page.keyboard.press("Escape")
        await ops_page.page.route("**/v1/admin/audit?*", lambda route: route.fulfill(status=503, json={}))
        await ops_page.page.click("#refresh")
        await ops_page.page.wait_for_selector("#audit-panel .state:not([hidden])")
        await check("6-panel-error")
        await ops_page.page.route("**/v1/admin/**", lambda route: route.abort())
        await ops_page.page.click("#refresh")
        await ops_page.error()
        await check("7-unavailable")

        assert found == dict.fromkeys(found, (False, []))
        paper = await ops_page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(22, 24, 28)") == (scheme == "dark")

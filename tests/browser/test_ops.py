"""The operators' page in a real browser: data, search, revocation with confirmation, keyboard use, dark mode."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.policy import ADMIN_SCOPE
from tests.support.browser import CHROMIUM_FLAGS, SCREENSHOT_FOLDER, chromium_or_skip
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service
from tests.support.tokens import token

pytestmark = pytest.mark.timeout(120)
expect.set_options(timeout=20_000)  # the page polls every five seconds


@dataclass
class OpsPage:
    """The operators' page in a browser."""

    page: Page
    service: Service
    telnyx: Telnyx
    errors: list[str] = field(default_factory=list)

    async def enter(self, secret: str | None = None) -> None:
        await self.page.wait_for_selector("#enter button:enabled")
        await self.page.fill("#token", secret or token("olga", scope=ADMIN_SCOPE))
        await self.page.keyboard.press("Enter")

    async def open(self) -> None:
        await self.enter()
        await self.page.wait_for_selector("#board:not([hidden])")

    async def find(self, subject: str) -> str:
        await self.page.fill("#subject", subject)
        await self.page.click("#search button")
        await self.page.wait_for_selector("#found > *")
        return await self.page.inner_text("#found")

    async def screenshot(self, name: str) -> None:
        if SCREENSHOT_FOLDER.is_dir():
            await self.page.screenshot(path=SCREENSHOT_FOLDER / f"ops-{name}.png", full_page=True)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = await chromium_or_skip()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def ops_page(browser: Browser, sqlite: str) -> AsyncIterator[OpsPage]:
    async with AsyncExitStack() as stack:
        telnyx = await stack.enter_async_context(telnyx_sandbox())
        service = await stack.enter_async_context(running_service(telnyx, sqlite, warm_pool_size=2))
        page = await browser.new_page()
        made = OpsPage(page, service, telnyx)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("console", lambda line: made.errors.append(line.text) if line.type == "error" else None)
        for user, device in (("alice", "laptop"), ("alice", "tab"), ("bob", "laptop")):
            await service.issue(device, user=user)
        await service.issue("laptop")
        await service.issue("phone", grant="sip_password")
        await service.components.operators.leases.refresh_counts()
        await page.goto(f"{service.url}/ops")
        yield made
        await page.close()


async def test_page_shows_leases_and_status(ops_page: OpsPage) -> None:
    await ops_page.screenshot("1-sign-in")
    await ops_page.open()
    await expect(ops_page.page.locator("#audit tr").nth(4)).to_be_visible()
    await ops_page.screenshot("2-status")

    summary = await ops_page.page.inner_text("#summary")
    assert "active leases\n3" in summary
    assert "closed" in await ops_page.page.inner_text("#telnyx")
    for entry in ("1 cached", "3 new devices"):
        await expect(ops_page.page.locator("#logins-legend")).to_contain_text(entry)
    await expect(ops_page.page.locator("#denials-legend")).to_contain_text("1 denied")
    assert await ops_page.page.locator("#logins rect").count() >= 1
    decisions = await ops_page.page.inner_text("#audit")
    assert "GrantNotAllowed" in decisions
    assert "bob" in decisions
    assert ops_page.errors == []


async def test_device_is_revoked_after_a_confirmation(ops_page: OpsPage) -> None:
    await ops_page.open()
    found = await ops_page.find("alice")
    assert "laptop" in found
    assert "tab" in found

    await ops_page.page.click(".lease:has-text('laptop') button")
    await ops_page.page.wait_for_selector("dialog[open]")
    await ops_page.screenshot("3-confirmation")
    await ops_page.page.keyboard.press("Escape")
    assert len(ops_page.telnyx.live()) >= 3, "cancel changes nothing"
    await ops_page.page.click(".lease:has-text('laptop') button")
    await ops_page.page.click("dialog button[value=yes]")
    await expect(ops_page.page.locator(".lease")).to_have_count(1)
    await ops_page.screenshot("4-revoked")

    leases = await ops_page.service.components.operators.leases.search(LeaseCriteria(subject="alice"), None, 10)
    assert {lease.device_id: lease.state.value for lease in leases} == {"laptop": "revoked", "tab": "active"}
    await expect(ops_page.page.locator("#audit")).to_contain_text("asked_by_operator")


async def test_user_is_revoked_on_all_devices_with_their_tokens(ops_page: OpsPage) -> None:
    stolen = {"Authorization": f"Bearer {token('alice')}"}
    await asyncio.sleep(1)  # `iat` has a resolution of one second
    await ops_page.open()
    await ops_page.find("alice")

    await ops_page.page.click("button.all")
    await ops_page.page.wait_for_selector("#confirm-tokens:not([hidden])")
    await ops_page.page.click("dialog button[value=yes]")
    await expect(ops_page.page.locator(".lease")).to_have_count(0)

    assert "alice has no live lease" in await ops_page.page.inner_text("#found")
    assert (await ops_page.service.ask("GET", headers=stolen)).status_code == 401


async def test_token_without_admin_rights_gets_an_explanation(ops_page: OpsPage) -> None:
    await ops_page.enter(token("alice"))
    await ops_page.page.wait_for_selector("#error:not([hidden])")

    assert "insufficient_scope" in await ops_page.page.inner_text("#error")
    assert await ops_page.page.is_hidden("#board")

    await ops_page.enter()
    await ops_page.page.wait_for_selector("#board:not([hidden])")
    assert await ops_page.page.is_hidden("#error")


async def test_page_is_usable_with_the_keyboard(ops_page: OpsPage) -> None:
    press = ops_page.page.keyboard.press
    await ops_page.page.wait_for_selector("#enter button:enabled")
    await ops_page.page.keyboard.type(token("olga", scope=ADMIN_SCOPE))
    await press("Enter")
    await ops_page.page.wait_for_selector("#board:not([hidden])")
    await ops_page.page.keyboard.type("bob")
    await press("Enter")
    await ops_page.page.wait_for_selector(".lease button")
    await press("Tab")
    await press("Tab")
    await press("Enter")
    await ops_page.page.wait_for_selector("dialog[open]")
    await press("Tab")
    await press("Enter")
    await expect(ops_page.page.locator(".lease")).to_have_count(0)

    assert "bob has no live lease" in await ops_page.page.inner_text("#found")


async def test_labels_are_escaped_and_the_token_is_not_stored(ops_page: OpsPage) -> None:
    secret = token("olga", scope=ADMIN_SCOPE)
    await ops_page.service.issue("laptop", user="<img src=x onerror=alert(1)>")
    await ops_page.enter(secret)
    await ops_page.page.wait_for_selector("#board:not([hidden])")
    found = await ops_page.find("<img src=x onerror=alert(1)>")

    assert "laptop" in found
    assert await ops_page.page.locator("img").count() == 0
    assert secret not in await ops_page.page.content()
    stored = await ops_page.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert stored == '[{},{},""]'
    assert ops_page.errors == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_page_is_readable_in_dark_mode_and_on_a_phone(ops_page: OpsPage, scheme: str) -> None:
    await ops_page.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await ops_page.page.set_viewport_size({"width": 360, "height": 740})
    await ops_page.open()
    await ops_page.find("alice")
    await ops_page.screenshot(f"5-phone-{scheme}")

    wider = await ops_page.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wider
    paper = await ops_page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 24, 28)") == (scheme == "dark")


async def test_page_can_be_disabled(telnyx: Telnyx, sqlite: str) -> None:
    async with running_service(telnyx, sqlite, ops_page=False) as service:
        assert (await service.client.get("/ops")).status_code == 404


async def test_page_loads_no_third_party_resources(service: Service) -> None:
    page = await service.client.get("/ops")

    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert (await service.client.get("/ops/../main.py")).status_code == 404
    assert (await service.client.get("/ops/__init__.py")).status_code == 404

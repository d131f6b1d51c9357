"""The operators' page in a real browser: real data, a search, an end after a question; keyboard, dark and light."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from app.vending.operators.lease_admin import Criteria
from app.vending.policy import ADMIN_SCOPE
from tests.browser.stand import FLAGS, SEEN, chromium_or_skip
from tests.stage import Service, Telnyx, service_in_front_of, telnyx_sandbox, token

pytestmark = pytest.mark.timeout(120)
expect.set_options(timeout=20_000)  # the page looks every five seconds


@dataclass
class Board:
    """The page, as an operator sees it."""

    page: Page
    service: Service
    telnyx: Telnyx
    complaints: list[str] = field(default_factory=list)

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

    async def shoot(self, name: str) -> None:
        if SEEN.is_dir():
            await self.page.screenshot(path=SEEN / f"ops-{name}.png", full_page=True)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = await chromium_or_skip()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def board(browser: Browser, sqlite: str) -> AsyncIterator[Board]:
    async with AsyncExitStack() as stack:
        telnyx = await stack.enter_async_context(telnyx_sandbox())
        service = await stack.enter_async_context(service_in_front_of(telnyx, sqlite, pool_size=2))
        page = await browser.new_page()
        made = Board(page, service, telnyx)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        page.on("console", lambda line: made.complaints.append(line.text) if line.type == "error" else None)
        for user, device in (("alice", "laptop"), ("alice", "tab"), ("bob", "laptop")):
            await service.issue(device, user=user)
        await service.issue("laptop")
        await service.issue("phone", grant="sip_password")
        await service.components.operators.leases.count()
        await page.goto(f"{service.url}/ops")
        yield made
        await page.close()


async def test_it_shows_what_is_there(board: Board) -> None:
    await board.shoot("1-door")
    await board.open()
    await expect(board.page.locator("#audit tr").nth(4)).to_be_visible()
    await board.shoot("2-board")

    figures = await board.page.inner_text("#figures")
    assert "live devices\n3" in figures
    assert "closed" in await board.page.inner_text("#telnyx")
    for said in ("1 from memory", "3 new devices"):
        await expect(board.page.locator("#logins-said")).to_contain_text(said)
    await expect(board.page.locator("#refusals-said")).to_contain_text("1 by a rule")
    assert await board.page.locator("#logins rect").count() >= 1
    decisions = await board.page.inner_text("#audit")
    assert "GrantNotAllowed" in decisions
    assert "bob" in decisions
    assert board.complaints == []


async def test_a_user_is_found_and_one_device_ended_after_a_question(board: Board) -> None:
    await board.open()
    found = await board.find("alice")
    assert "laptop" in found
    assert "tab" in found

    await board.page.click(".lease:has-text('laptop') button")
    await board.page.wait_for_selector("dialog[open]")
    await board.shoot("3-question")
    await board.page.keyboard.press("Escape")
    assert len(board.telnyx.live()) >= 3, "no means no"
    await board.page.click(".lease:has-text('laptop') button")
    await board.page.click("dialog button[value=yes]")
    await expect(board.page.locator(".lease")).to_have_count(1)
    await board.shoot("4-found")

    leases = await board.service.components.operators.leases.page(Criteria(subject="alice"), None, 10)
    assert {lease.device_id: lease.state.value for lease in leases} == {"laptop": "revoked", "tab": "active"}
    await expect(board.page.locator("#audit")).to_contain_text("asked_by_operator")


async def test_a_stolen_laptop_ends_everywhere_with_its_tokens(board: Board) -> None:
    stolen = {"Authorization": f"Bearer {token('alice')}"}
    await asyncio.sleep(1)  # tokens tell seconds
    await board.open()
    await board.find("alice")

    await board.page.click("button.all")
    await board.page.wait_for_selector("#confirm-tokens:not([hidden])")
    await board.page.click("dialog button[value=yes]")
    await expect(board.page.locator(".lease")).to_have_count(0)

    assert "alice has no live device" in await board.page.inner_text("#found")
    assert (await board.service.ask("GET", headers=stolen)).status_code == 401


async def test_whoever_may_not_is_told_so(board: Board) -> None:
    await board.enter(token("alice"))
    await board.page.wait_for_selector("#error:not([hidden])")

    assert "insufficient_scope" in await board.page.inner_text("#error")
    assert await board.page.is_hidden("#board")

    await board.enter()
    await board.page.wait_for_selector("#board:not([hidden])")
    assert await board.page.is_hidden("#error")


async def test_the_keyboard_is_enough(board: Board) -> None:
    press = board.page.keyboard.press
    await board.page.wait_for_selector("#enter button:enabled")
    await board.page.keyboard.type(token("olga", scope=ADMIN_SCOPE))
    await press("Enter")
    await board.page.wait_for_selector("#board:not([hidden])")
    await board.page.keyboard.type("bob")
    await press("Enter")
    await board.page.wait_for_selector(".lease button")
    await press("Tab")
    await press("Tab")
    await press("Enter")
    await board.page.wait_for_selector("dialog[open]")
    await press("Tab")
    await press("Enter")
    await expect(board.page.locator(".lease")).to_have_count(0)

    assert "bob has no live device" in await board.page.inner_text("#found")


async def test_names_from_outside_are_text_and_the_token_is_nowhere(board: Board) -> None:
    secret = token("olga", scope=ADMIN_SCOPE)
    await board.service.issue("laptop", user="<img src=x onerror=alert(1)>")
    await board.enter(secret)
    await board.page.wait_for_selector("#board:not([hidden])")
    found = await board.find("<img src=x onerror=alert(1)>")

    assert "laptop" in found
    assert await board.page.locator("img").count() == 0
    assert secret not in await board.page.content()
    stored = await board.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert stored == '[{},{},""]'
    assert board.complaints == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_it_is_readable_in_the_dark_and_on_a_phone(board: Board, scheme: str) -> None:
    await board.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await board.page.set_viewport_size({"width": 360, "height": 740})
    await board.open()
    await board.find("alice")
    await board.shoot(f"5-phone-{scheme}")

    wider = await board.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wider
    paper = await board.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 24, 28)") == (scheme == "dark")


async def test_it_can_be_switched_off(telnyx: Telnyx, sqlite: str) -> None:
    async with service_in_front_of(telnyx, sqlite, ops_page=False) as service:
        assert (await service.client.get("/ops")).status_code == 404


async def test_it_loads_nothing_from_elsewhere(service: Service) -> None:
    page = await service.client.get("/ops")

    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert (await service.client.get("/ops/../main.py")).status_code == 404
    assert (await service.client.get("/ops/__init__.py")).status_code == 404

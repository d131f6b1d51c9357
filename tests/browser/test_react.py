"""React 19 in a real browser, in StrictMode, with the unmodified SDK: a tab is one device, and has one registration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.support.browser import WAIT_SECONDS, BrowserEnvironment, browser_environment
from tests.support.react_page import COMPONENTS, ROUNDS, bundle_react_page, react_script
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserEnvironment]:
    async with browser_environment(tmp_path_factory.mktemp("browser"), max_devices=100) as made:
        yield made


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory, environment: BrowserEnvironment) -> str:
    return bundle_react_page(tmp_path_factory.mktemp("bundle"))


@asynccontextmanager
async def react_page(environment: BrowserEnvironment, script: str, user: str) -> AsyncIterator[Page]:
    """The softphone's page, into which the script is loaded. The softphone itself does nothing without a sign-in."""
    async with environment.profile() as context:
        page = await context.new_page()
        page.on("pageerror", lambda error: pytest.fail(f"the page reports {error}"))
        await page.add_init_script(await react_script(environment, script, user))
        await page.goto(environment.url)
        yield page
        await page.evaluate("unmount()")
        await eventually(lambda: environment.telnyx.sandbox.exchange.registrations() == [], WAIT_SECONDS)


async def wait_until_ready(page: Page) -> None:
    await page.wait_for_selector("#status[data-state=ready]", state="attached", timeout=WAIT_SECONDS * 1000)


async def mount(page: Page, component: str) -> None:
    await page.evaluate("(component) => mount(component)", component)


def devices(environment: BrowserEnvironment) -> int:
    return len(environment.telnyx.live())


@pytest.mark.parametrize("component", COMPONENTS)
async def test_mounts_and_unmounts_are_one_device(environment: BrowserEnvironment, script: str, component: str) -> None:
    before = devices(environment)
    async with react_page(environment, script, "alice") as page:
        for number in range(ROUNDS):
            await mount(page, component)
            await asyncio.sleep(0.02 * (number % 5))  # before, during and after the request
            await page.evaluate("unmount()")
        await mount(page, component)
        await wait_until_ready(page)

        assert devices(environment) == before + 1
        assert len(environment.telnyx.sandbox.exchange.registrations()) == 1


@pytest.mark.parametrize("component", COMPONENTS)
async def test_reloads_and_navigations_are_one_device(
    environment: BrowserEnvironment, script: str, component: str
) -> None:
    before = devices(environment)
    async with react_page(environment, script, "bob") as page:
        for number in range(6):
            await mount(page, component)
            if number % 2:
                await wait_until_ready(page)
            await page.reload()
        for _ in range(3):
            await mount(page, component)
            await wait_until_ready(page)
            await page.goto(f"{environment.url}/?other")
            await page.go_back()
        await page.reload()  # the browser may have restored the page with its component
        await mount(page, component)
        await wait_until_ready(page)

        assert devices(environment) == before + 1
        await eventually(lambda: len(environment.telnyx.sandbox.exchange.registrations()) == 1, WAIT_SECONDS)


async def test_twelve_rounds_of_connect_and_close_are_one_device(environment: BrowserEnvironment, script: str) -> None:
    before = devices(environment)
    async with react_page(environment, script, "carol") as page:
        await page.evaluate(
            """async () => {
              for (let round = 0; round < 12; round += 1) {
                const phone = newPhone();
                await phone.connect();
                phone.close();
              }
            }"""
        )

        assert devices(environment) == before + 1
        await mount(page, "WithProvider")
        await wait_until_ready(page)
        assert len(environment.telnyx.sandbox.exchange.registrations()) == 1


async def test_hook_lists_the_device_of_the_tab(environment: BrowserEnvironment, script: str) -> None:
    async with react_page(environment, script, "alice") as page:
        await mount(page, "WithProvider")
        await wait_until_ready(page)

        await page.wait_for_selector("#status[data-devices]", state="attached")

        assert (await page.inner_text("#status")).startswith("sip:gencred")


async def test_second_provider_of_the_page_is_explained(environment: BrowserEnvironment, script: str) -> None:
    async with react_page(environment, script, "bob") as page:
        await mount(page, "WithProvider")
        await wait_until_ready(page)
        code = await page.evaluate("newPhone().connect().catch((error) => error.code)")

        assert code == "already_open"
        assert len(environment.telnyx.sandbox.exchange.registrations()) == 1

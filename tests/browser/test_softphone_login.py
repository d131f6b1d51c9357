"""The address and the login on the softphone page: copy button, timeline, and credentials older than their login."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.browser import BrowserEnvironment, Tab, browser_environment

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

OLDER_CREDENTIAL = "The credential was usable before this login was issued"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserEnvironment]:
    async with browser_environment(tmp_path_factory.mktemp("browser"), max_devices=100) as made:
        yield made


async def copied(tab: Tab) -> str:
    """Press the copy button, and return the text that it then has for three seconds."""
    await tab.page.evaluate(
        """() => {
          const button = document.querySelector("#copy");
          const note = () => (button.dataset.shown ??= button.textContent);
          new MutationObserver(note).observe(button, { childList: true });
        }"""
    )
    await tab.page.click("#copy")
    await tab.page.wait_for_selector("#copy[data-shown]")
    return str(await tab.page.get_attribute("#copy", "data-shown"))


async def labels_outside_the_frame(tab: Tab) -> list[str]:
    found: list[str] = await tab.page.evaluate(
        """() => {
          const { left, right } = document.querySelector("#timeline").getBoundingClientRect();
          const labels = [...document.querySelectorAll("#timeline span")].map((e) => [e, e.getBoundingClientRect()]);
          return labels.filter(([, box]) => box.left < left - 1 || box.right > right + 1).map(([e]) => e.textContent);
        }"""
    )
    return found


async def test_address_is_copied(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        await one.grant_permissions(["clipboard-read", "clipboard-write"], origin=environment.url)
        tab = await environment.tab(one)
        assert await tab.page.is_hidden("#copy")
        uri = await tab.register("alice")

        assert await copied(tab) == "Copied"

        assert await tab.page.evaluate("navigator.clipboard.readText()") == uri
        await tab.page.click("#logout")
        await tab.wait_for_state("logged_out")
        assert await tab.page.is_hidden("#copy")


@pytest.mark.parametrize(
    "clipboard",
    ["undefined", "{ writeText: () => Promise.reject(new DOMException('denied', 'NotAllowedError')) }"],
    ids=["insecure origin", "denied"],
)
async def test_address_is_selected_if_the_clipboard_is_unavailable(
    environment: BrowserEnvironment, clipboard: str
) -> None:
    async with environment.profile() as one:
        await one.add_init_script(f"Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard} }})")
        tab = await environment.tab(one)
        uri = await tab.register("alice")

        assert "Ctrl+C" in await copied(tab)

        await tab.page.wait_for_function("(uri) => getSelection().toString() === uri", arg=uri)
        assert tab.errors == []


@pytest.mark.parametrize("width", [320, 1280])
async def test_labels_of_the_timeline_are_inside_its_frame(environment: BrowserEnvironment, width: int) -> None:
    async with environment.profile(viewport={"width": width, "height": 800}) as one:
        tab = await environment.tab(one)
        await tab.register("alice")

        assert await labels_outside_the_frame(tab) == []


async def test_new_credential_has_no_hint(environment: BrowserEnvironment) -> None:
    async with environment.profile() as one:
        tab = await environment.tab(one)
        await tab.register("alice")

        assert await tab.page.is_hidden("#usable-hint")


async def test_pooled_credential_is_explained_and_does_not_stretch_the_timeline(tmp_path: Path) -> None:
    async with browser_environment(tmp_path, warm_pool_size=1, max_devices=100) as environment:
        while not environment.telnyx.live():
            await asyncio.sleep(0.05)
        await asyncio.sleep(3)
        async with environment.profile() as one:
            tab = await environment.tab(one)
            await tab.register("alice")

            assert OLDER_CREDENTIAL in await tab.page.inner_text("#usable-hint")
            assert await tab.page.evaluate("document.querySelector('#timeline .mark').style.left") == "0%"
            assert await labels_outside_the_frame(tab) == []
            await tab.page.click("#logout")
            await tab.wait_for_state("logged_out")
            assert await tab.page.is_hidden("#usable-hint")

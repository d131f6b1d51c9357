"""The documentation's code for browser pages, run in a real browser with only names and addresses replaced."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route

from tests.support.browser import WAIT_SECONDS, BrowserEnvironment, browser_environment, token_for
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


def code_block(page: str, language: str) -> str:
    """The only code block of that language on the page."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return str(block)


def filled_in(text: str, config: dict[str, Any]) -> str:
    for written, real in (
        ('"@telnyx/webrtc"', '"/sdk.js"'),
        ('"dialtone-client"', '"/dialtone-client/index.js"'),
        ('"https://phones.example.com"', f'"{config["service"]}"'),
    ):
        text = text.replace(written, real)
    return text


async def test_complete_page_of_the_browser_guide_registers(tmp_path: Path) -> None:
    async with browser_environment(tmp_path) as environment, environment.profile(bypass_csp=True) as context:
        token, config = await token_for(environment, "alice")
        html = filled_in(code_block("docs/browser.md", "html"), config)
        html = html.replace('async () => "..."', f'async () => "{token}"')
        page = await context.new_page()
        await page.goto(environment.url)

        await page.set_content(html)

        await page.wait_for_function("document.querySelector('#state').textContent.startsWith('registered as sip:')")
        await page.wait_for_selector("#call:enabled")
        assert len(environment.telnyx.sandbox.exchange.registrations()) == 1


@pytest.mark.parametrize("document", ["README.md", "clients/js/README.md"])
async def test_short_example_registers(document: str, tmp_path: Path) -> None:
    async with browser_environment(tmp_path) as environment, environment.profile(bypass_csp=True) as context:
        token, config = await token_for(environment, "alice")
        module = filled_in(code_block(document, "js"), config)
        page = await context.new_page()
        await page.goto(environment.url)
        await page.evaluate("(token) => (globalThis.auth = { getAccessToken: () => token })", token)

        await page.add_script_tag(content=module, type="module")

        await eventually(lambda: len(environment.telnyx.sandbox.exchange.registrations()) == 1, WAIT_SECONDS)


def test_short_example_of_the_readme_is_short() -> None:
    assert len(code_block("README.md", "js").strip().splitlines()) <= 12


@asynccontextmanager
async def page_with_grants(folder: Path) -> AsyncIterator[tuple[BrowserEnvironment, Page]]:
    """A page whose global functions are `open`, which runs the module of the guide to grants, and `show`."""
    async with (
        browser_environment(folder, has_guests=True) as environment,
        environment.profile(bypass_csp=True) as context,
    ):
        _, config = await token_for(environment, "alice")
        module = filled_in(code_block("docs/grants.md", "js"), config).replace('"/phone-grant"', '"/grant"')
        page = await context.new_page()
        await page.goto(environment.url)
        await page.evaluate("globalThis.show = (message) => (globalThis.shown = message)")
        module = module.replace("const phone =", "const phone = globalThis.phone =")
        await page.evaluate(
            """(text) => {
              const script = Object.assign(document.createElement("script"), { type: "module", text });
              globalThis.open = () => document.head.append(script);
            }""",
            module,
        )
        yield environment, page


async def test_page_of_the_guide_to_grants_replaces_a_rejected_grant(tmp_path: Path) -> None:
    async with page_with_grants(tmp_path) as (environment, page):
        await page.evaluate("open()")
        await page.wait_for_function("globalThis.phone?.state === 'ready'")
        uri = await page.evaluate("phone.sipUri")
        await environment.service.components.grants.revoker.revoke_all(None)

        await page.evaluate("phone.refresh()")

        await page.wait_for_function("(uri) => phone.sipUri !== uri && phone.state === 'ready'", arg=uri)


async def test_page_of_the_guide_to_grants_shows_an_error_if_the_second_grant_is_rejected(tmp_path: Path) -> None:
    async with page_with_grants(tmp_path) as (_, page):
        grants = 0

        async def give_an_invalid_grant(route: Route) -> None:
            nonlocal grants
            grants += 1
            await route.fulfill(json={"token": "not.a.grant", "expires_at": "2999-01-01T00:00:00Z"})

        await page.route("**/grant", give_an_invalid_grant)

        await page.evaluate("open()")

        await page.wait_for_function("globalThis.shown === 'Your session has ended. Please sign in again.'")
        assert grants == 2

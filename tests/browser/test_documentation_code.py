"""The documentation's code for browser pages, run in a real browser with only names and addresses replaced."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import browser_environment, token_for
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
        assert await page.is_enabled("#call")
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

        await eventually(lambda: len(environment.telnyx.sandbox.exchange.registrations()) == 1)


def test_short_example_of_the_readme_is_short() -> None:
    assert len(code_block("README.md", "js").strip().splitlines()) <= 12

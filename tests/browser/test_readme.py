"""The README's code for browser pages, run unchanged in a real browser except for names and addresses."""

import re
from pathlib import Path
from typing import Any

import httpx

from tests.support.browser import BrowserEnvironment, browser_environment
from tests.support.waiting import eventually

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def snippet(language: str, *, holding: str) -> str:
    found = [block for block in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in block]
    assert len(found) == 1
    block: str = found[0]
    return block


async def token_for(environment: BrowserEnvironment, user: str) -> tuple[str, dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        config: dict[str, Any] = (await client.get(f"{environment.url}/config.json")).json()
        answer = await client.post(f"{config['identity']}/token", json={"user": user})
        return answer.json()["access_token"], config


def filled_in(text: str, config: dict[str, Any]) -> str:
    for written, real in (
        ('"@telnyx/webrtc"', '"/sdk.js"'),
        ('"dialtone-client"', '"/dialtone-client/index.js"'),
        ('"https://phones.example.com"', f'"{config["service"]}"'),
    ):
        text = text.replace(written, real)
    return text


async def test_complete_page_of_the_readme_registers(tmp_path: Path) -> None:
    async with browser_environment(tmp_path) as environment, environment.profile(bypass_csp=True) as context:
        token, config = await token_for(environment, "alice")
        html = filled_in(snippet("html", holding="<!doctype html>"), config)
        html = html.replace('async () => "..."', f'async () => "{token}"')
        page = await context.new_page()
        await page.goto(environment.url)

        await page.set_content(html)

        await page.wait_for_function("document.querySelector('#state').textContent.startsWith('registered as sip:')")
        assert await page.is_enabled("#call")
        assert len(environment.telnyx.sandbox.exchange.registrations()) == 1


async def test_short_example_of_the_readme_registers_and_calls(tmp_path: Path) -> None:
    async with browser_environment(tmp_path) as environment, environment.profile(bypass_csp=True) as context:
        token, config = await token_for(environment, "alice")
        module = filled_in(snippet("js", holding="dialtone-client"), config)
        page = await context.new_page()
        await page.goto(environment.url)
        await page.evaluate("(token) => (globalThis.auth = { getAccessToken: () => token })", token)

        await page.add_script_tag(content=module, type="module")

        await eventually(lambda: len(environment.telnyx.sandbox.exchange.registrations()) == 1)
        assert len(module.strip().splitlines()) <= 12

"""Chromium with the page, an identity provider, the service and the sandbox, each on its own socket."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, JSHandle, Page, async_playwright

from app.sandbox.demo_files import demo_configuration, grant_key
from app.sandbox.identity_provider import create_identity_provider
from app.sandbox.openid.tokens import TOKEN_SECONDS
from app.sandbox.providers import DEMO, simulate
from app.sandbox.softphone.server import CLIENT, create_page
from tests.support.databases import sqlite_url
from tests.support.grants import from_file
from tests.support.http_server import DeferredApp, serve
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT_SECONDS = 30.0
"""How long a test waits for a page. Only a hang should take as long."""

PATIENT = {"telnyx_call_seconds": 20.0, "request_timeout_seconds": 40.0}
"""Settings of a service next to a browser, which may take the processor from the sandbox for seconds."""

RECEIVED_BYTES = """async () => {
  const [call] = Object.values(softphone.phone.client.calls);
  const stats = [...(await call.peer.instance.getStats()).values()];
  return stats.filter((s) => s.type === "inbound-rtp").reduce((sum, s) => sum + s.bytesReceived, 0);
}"""
"""Function with the inbound RTP bytes of the current call, as the browser counts them."""

SCREENSHOT_FOLDER = Path(os.environ.get("SCREENSHOTS", "/nonexistent"))
"""Folder for screenshots, from the environment variable SCREENSHOTS."""


@dataclass
class Tab:
    """One tab of the softphone page."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Page errors and violations of the content security policy."""

    async def sign_in(self, user: str) -> None:
        await self.page.select_option("#user", user)
        await self.page.click("#sign-in-button")

    async def wait_for_state(self, state: str) -> None:
        await self.page.wait_for_selector(f"#lamp[data-state={state}]", state="attached", timeout=WAIT_SECONDS * 1000)

    async def register(self, user: str) -> str:
        """Sign in, wait until the page is registered, and return the SIP URI."""
        await self.sign_in(user)
        await self.wait_for_state("ready")
        return await self.sip_uri()

    async def sip_uri(self) -> str:
        return await self.page.inner_text("#sip-uri")

    async def error(self) -> str:
        await self.page.wait_for_selector("#error:not([hidden])", timeout=WAIT_SECONDS * 1000)
        return await self.page.inner_text("#error")

    async def dial(self, sip_uri: str) -> None:
        await self.page.fill("#to", sip_uri)
        await self.page.click("#dial button")

    async def wait_for_call(self, state: str) -> None:
        await self.page.wait_for_selector(f".call[data-state={state}]", timeout=WAIT_SECONDS * 1000)

    async def wait_until_call_is_over(self) -> None:
        await self.page.wait_for_selector(".call", state="detached", timeout=WAIT_SECONDS * 1000)

    async def press(self, name: str) -> None:
        await self.page.click(f".call button:has-text('{name}')")

    async def received_bytes(self) -> int:
        return int(await self.page.evaluate(RECEIVED_BYTES))

    async def wait_until_received(self, count: int) -> None:
        """Wait until the current call has received more than this number of bytes from now on."""
        limit = await self.received_bytes() + count
        deadline = time.monotonic() + WAIT_SECONDS
        while await self.received_bytes() <= limit:
            assert time.monotonic() < deadline, "no media"
            await asyncio.sleep(0.1)

    async def record(self, event: str, text: str) -> JSHandle:
        """A list that gets a text for each event of the phone. `text` is an expression with `it`, the event's value.

        The test sees states in it that a page has only for a moment.
        """
        return await self.page.evaluate_handle(
            f"""() => {{
              const seen = [];
              softphone.phone.on("{event}", (it) => seen.push({text}));
              return seen;
            }}"""
        )

    async def wait_until_recorded(self, records: JSHandle, text: str) -> None:
        await self.page.wait_for_function(
            "([records, text]) => records.includes(text)", arg=[records, text], timeout=WAIT_SECONDS * 1000
        )

    async def screenshot(self, name: str) -> None:
        if SCREENSHOT_FOLDER.is_dir():
            await self.page.screenshot(path=SCREENSHOT_FOLDER / f"{name}.png", full_page=True)


@dataclass
class PageServers:
    """The servers that the softphone page uses, and the URL of the page."""

    telnyx: Telnyx
    service: Service
    url: str


@dataclass
class BrowserEnvironment(PageServers):
    """The servers that a page uses, and the browser that it runs in."""

    browser: Browser

    @asynccontextmanager
    async def profile(self, **options: Any) -> AsyncIterator[BrowserContext]:
        """A new browser profile. Its tabs share storage."""
        context = await self.browser.new_context(permissions=["microphone"], **options)
        try:
            yield context
        finally:
            await context.close()

    async def tab(self, context: BrowserContext) -> Tab:
        page = await context.new_page()
        tab = Tab(page)
        page.on("pageerror", lambda error: tab.errors.append(str(error)))
        page.on("console", lambda line: tab.errors.append(line.text) if "Content Security" in line.text else None)
        await page.goto(self.url)
        await page.wait_for_selector("#sign-in-button:enabled")
        return tab


async def token_for(environment: PageServers, user: str) -> tuple[str, dict[str, Any]]:
    """An access token of the demo user, and the configuration of the softphone page."""
    async with httpx.AsyncClient(trust_env=False) as client:
        config: dict[str, Any] = (await client.get(f"{environment.url}/config.json")).json()
        answer = await client.post(f"{config['identity']}/token", json={"user": user})
        return answer.json()["access_token"], config


@asynccontextmanager
async def page_servers(
    folder: Path,
    *,
    propagation: float = 0.3,
    origin: str | None = None,
    access_token_seconds: int = TOKEN_SECONDS,
    has_guests: bool = False,
    **settings: Any,
) -> AsyncIterator[PageServers]:
    """`origin`: of a page besides the softphone page. `access_token_seconds`: of tokens for an authorization code.

    `has_guests`: with the configuration of `make dev`, in which guests can call.
    """
    async with AsyncExitStack() as stack:
        telnyx = await stack.enter_async_context(telnyx_sandbox(propagation=timedelta(seconds=propagation)))
        signalling = telnyx.url.replace("http", "ws").removesuffix("/v2")
        identity, page = DeferredApp(), DeferredApp()
        identity_url = await stack.enter_async_context(serve(identity))
        page_url = await stack.enter_async_context(serve(page))
        identity.app = create_identity_provider(identity_url, access_token_seconds=access_token_seconds)
        identity_settings: dict[str, Any] = {"issuer": identity_url, "issuer_pem": None}
        if has_guests:
            (folder / "dialtone.toml").write_text(demo_configuration(simulate(DEMO, identity_url)))
            identity_settings = {**from_file(str(folder / "dialtone.toml")), "grant_key": grant_key()}
        service = await stack.enter_async_context(
            running_service(
                telnyx,
                sqlite_url(folder),
                **identity_settings,
                cors_origins=",".join(filter(None, [page_url, origin])),
                rtc_host=signalling,
                propagation_seconds=propagation,
                **(PATIENT | settings),
            )
        )
        page.app = create_page(service=service.url, identity=identity_url, signalling=signalling, has_guests=has_guests)
        yield PageServers(telnyx, service, page_url)


@asynccontextmanager
async def browser_environment(folder: Path, **options: Any) -> AsyncIterator[BrowserEnvironment]:
    """Chromium and `page_servers`, with its options."""
    skip_without_client()
    chromium = await chromium_or_skip()
    async with page_servers(folder, **options) as servers, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(browser.close)
            yield BrowserEnvironment(servers.telnyx, servers.service, servers.url, browser)


def skip_without(tool: str) -> NoReturn:
    """Skip the test, because this is missing; in CI, fail."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(tool)
    pytest.skip(tool)


def skip_without_client() -> None:
    if not (CLIENT / "dist" / "index.js").exists():
        skip_without("the browser client is not built: Node 20 is needed (make client)")


async def chromium_or_skip() -> str | None:
    """Path of Chromium, or None for Playwright's own. Skips if it is missing; fails in CI."""
    installed = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if installed is None:
        async with async_playwright() as playwright:
            if not Path(playwright.chromium.executable_path).exists():
                skip_without("no Chromium: install Debian's chromium, or run `playwright install chromium`")
    return installed

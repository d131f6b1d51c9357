"""The operators' page in Chromium, with the service, the sandbox and an identity provider that signs operators in."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, async_playwright, expect

from app.sandbox.identity_provider import create_identity_provider
from app.vending.policy import ADMIN_SCOPE
from tests.support.browser import CHROMIUM_FLAGS, PATIENT, SCREENSHOT_FOLDER, chromium_or_skip, skip_without
from tests.support.databases import sqlite_url
from tests.support.http_server import DeferredApp, http_client, serve
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service
from tests.support.waiting import eventually

CLIENT_ID = "dialtone-operators"
BERLIN = "Europe/Berlin"
AXE = Path(__file__).parents[1] / "contract" / "node_modules" / "axe-core" / "axe.min.js"

expect.set_options(timeout=30_000)  # the page polls every five seconds


@dataclass
class OpsPage:
    """The operators' page, and what it runs with."""

    context: BrowserContext
    page: Page
    service: Service
    telnyx: Telnyx
    identity_url: str
    errors: list[str] = field(default_factory=list)
    """Page errors, and console errors except for failed requests."""
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.service.url}/ops"

    async def token(self, user: str = "alice", scope: str | None = None) -> str:
        """A token of the identity provider."""
        wanted = {"user": user} | ({} if scope is None else {"scope": scope})
        async with http_client(self.identity_url) as client:
            token: str = (await client.post("/token", json=wanted)).json()["access_token"]
        return token

    async def issue(self, user: str, device: str, **wishes: Any) -> int:
        """The status of a login request with a new token."""
        headers = {"Authorization": f"Bearer {await self.token(user)}"}
        answer = await self.service.ask("POST", headers=headers, json={"device_id": device, **wishes})
        return answer.status_code

    async def wait_until_audited(self) -> None:
        """Wait until all audit events so far have a row, which they get in batches."""
        await eventually(lambda: self.service.components.audit.queued == 0, 30)

    async def open(self, fragment: str = "") -> None:
        """Load the page, and sign in as the operator alice."""
        await self.page.goto(f"{self.url}{fragment}")
        await self.sign_in()

    async def sign_in(self, user: str = "alice") -> None:
        await self.page.click("#provider")
        await self.page.click(f"button[value={user}]")
        await self.wait_until_open()

    async def enter(self, token: str) -> None:
        """Enter an access token."""
        await expect(self.page.locator("#sign-in-state")).not_to_contain_text("Loading")
        if not await self.page.is_visible("#token"):
            await self.page.click("#paste summary")
        await self.page.fill("#token", token)
        await self.page.keyboard.press("Enter")

    async def enter_operator(self) -> None:
        await self.enter(await self.token(scope=f"phone {ADMIN_SCOPE}"))

    async def wait_until_open(self) -> None:
        await self.page.wait_for_selector("#board:not([hidden])")
        await expect(self.page.locator("#updated")).to_contain_text("Updated at")

    async def sent_bearer_token(self) -> str:
        """The token of the last request to the admin API."""
        headers = [await request.all_headers() for request in self.requests if "/v1/admin/" in request.url]
        return headers[-1]["authorization"].removeprefix("Bearer ")

    async def error(self) -> str:
        await self.page.wait_for_selector("#error:not([hidden])")
        return await self.page.inner_text("#error")

    async def find(self, text: str, by: str = "subject") -> str:
        await self.page.select_option("#by", by)
        await self.page.fill("#query", text)
        await self.page.keyboard.press("Enter")
        await expect(self.page.locator("#search-result")).to_contain_text(text.removeprefix("sip:").split("@")[0])
        return await self.page.inner_text("#found")

    async def confirm(self) -> None:
        await self.page.wait_for_selector("dialog[open]")
        await self.page.click("#confirm-yes")

    async def screenshot(self, name: str) -> None:
        if SCREENSHOT_FOLDER.is_dir():
            await self.page.screenshot(path=SCREENSHOT_FOLDER / f"ops-{name}.png", full_page=True)

    async def axe_findings(self) -> list[str]:
        """The rules of axe that the page violates, with the elements."""
        if not AXE.exists():
            skip_without("axe-core is not installed: `make contract-tools`")
        await self.page.evaluate(AXE.read_text())
        found = await self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found["violations"]]

    async def is_too_wide(self) -> bool:
        """Whether the page scrolls horizontally, or a row of the audit is cut."""
        return bool(
            await self.page.evaluate(
                """() => [document.documentElement, ...document.querySelectorAll("section, tr, td, li, dd")]
                     .some((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1)"""
            )
        )


@asynccontextmanager
async def ops_environment(
    folder: Path, *, browser: dict[str, Any] | None = None, file: str | None = None, **settings: Any
) -> AsyncIterator[OpsPage]:
    """`browser` are options of the profile. `file` is a dialtone.toml, in which IDENTITY is the provider's URL."""
    chromium = await chromium_or_skip()
    async with AsyncExitStack() as stack:
        telnyx = await stack.enter_async_context(telnyx_sandbox())
        identity = DeferredApp()
        identity_url = await stack.enter_async_context(serve(identity))
        identity.app = create_identity_provider(identity_url)
        issuer: dict[str, Any] = {"issuer": identity_url, "ops_client_id": CLIENT_ID}
        if file is not None:
            (folder / "dialtone.toml").write_text(file.replace("IDENTITY", identity_url))
            issuer = {"issuer": ..., "audience": ..., "config": str(folder / "dialtone.toml")}
        service = await stack.enter_async_context(
            running_service(telnyx, sqlite_url(folder), **({"issuer_pem": ...} | PATIENT | issuer | settings))
        )
        playwright = await stack.enter_async_context(async_playwright())
        launched = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        stack.push_async_callback(launched.close)
        context = await launched.new_context(timezone_id=BERLIN, **(browser or {}))
        page = await context.new_page()
        made = OpsPage(context, page, service, telnyx, identity_url)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("console", lambda line: made.errors.append(line.text) if _is_fault(line, service.url) else None)
        page.on("request", lambda request: made.requests.append(request))
        yield made


def _is_fault(line: ConsoleMessage, url: str) -> bool:
    """Chromium logs each response with an error status, which tests of errors cause. The provider has pages too."""
    is_own = line.location["url"].startswith(url)
    return line.type == "error" and is_own and "Failed to load resource" not in line.text

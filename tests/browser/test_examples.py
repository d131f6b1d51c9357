"""The applications in `examples/`, built by their own commands, in a real browser: calls, sign-in and errors."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.browser import WAIT_SECONDS, BrowserEnvironment, browser_environment, skip_without, token_for
from tests.support.http_server import DeferredApp, free_port, serve
from tests.support.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
DIALTONE, IDENTITY = "http://127.0.0.1:8010", "http://127.0.0.1:8012"
"""The addresses of `make dev`, which the examples contain."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@dataclass
class Example:
    """A built example, served by its own web server."""

    environment: BrowserEnvironment
    url: str

    async def open(self, context: BrowserContext) -> Page:
        page = await context.new_page()
        page.on("pageerror", lambda error: pytest.fail(f"the page reports {error}"))
        await page.goto(self.url)
        return page

    async def begin_sign_in(self, page: Page, user: str) -> None:
        await page.get_by_label("User").select_option(user)
        await press(page, "Sign in")

    async def sign_in(self, page: Page, user: str) -> str:
        """Sign in, wait until the page is registered, and return its address."""
        await self.begin_sign_in(page, user)
        await wait_for_state(page, "ready")
        return await page.inner_text("#address")

    def registrations(self) -> list[str]:
        return self.environment.telnyx.sandbox.exchange.registrations()


@dataclass
class NextExample(Example):
    """The example whose users sign in at the page of the identity provider."""

    identity: str

    async def begin_sign_in(self, page: Page, user: str) -> None:
        await press(page, "Sign in")
        await press(page, user)


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def wait_for_state(page: Page, state: str) -> None:
    await page.wait_for_function("(state) => document.querySelector('#state')?.textContent === state", arg=state)


async def dial(page: Page, address: str) -> None:
    await page.fill("#to", address)
    await press(page, "Call")


async def wait_for_call(page: Page, state: str) -> None:
    await page.wait_for_function("(state) => document.querySelector('#call-state')?.textContent === state", arg=state)


async def wait_for_the_end_of_the_call(page: Page) -> None:
    await page.get_by_role("button", name="Hang up").wait_for(state="hidden")


def build(folder: Path) -> None:
    """Skips if the example's packages are not installed; fails in CI."""
    if not (folder / "node_modules" / "dialtone-client" / "dist").exists():
        skip_without(f"the packages of {folder.name} are not installed: `make examples-test` installs them")
    subprocess.run(["npm", "run", "build", "--silent"], cwd=folder, check=True)


def pages(folder: Path, addresses: dict[str, str]) -> Starlette:
    """The files of a built example, with its addresses replaced."""

    async def file(request: Request) -> Response:
        path = folder / (request.path_params["path"] or "index.html")
        if not path.is_file() or path.suffix not in MEDIA_TYPES:
            return Response(status_code=404)
        text = path.read_text()
        for written, real in addresses.items():
            text = text.replace(written, real)
        return Response(text, media_type=MEDIA_TYPES[path.suffix])

    return Starlette(routes=[Route("/{path:path}", file)])


@asynccontextmanager
async def static_example(name: str, served: str, folder: Path) -> AsyncIterator[Example]:
    build(EXAMPLES / name)
    app = DeferredApp()
    async with serve(app) as url, browser_environment(folder, origin=url) as environment:
        _, config = await token_for(environment, "alice")
        app.app = pages(EXAMPLES / name / served, {DIALTONE: config["service"], IDENTITY: config["identity"]})
        yield Example(environment, url)


@asynccontextmanager
async def next_example(
    folder: Path, access_token_seconds: int = 3600, *, is_identity_available: bool = True
) -> AsyncIterator[NextExample]:
    """The built example with its own server, `next start`."""
    port = free_port()
    url = f"http://localhost:{port}"
    async with browser_environment(folder, origin=url, access_token_seconds=access_token_seconds) as environment:
        _, config = await token_for(environment, "alice")
        identity = config["identity"] if is_identity_available else "http://127.0.0.1:1"
        addresses = {"APP_URL": url, "DIALTONE_URL": config["service"], "ISSUER": identity}
        process = await asyncio.create_subprocess_exec(
            *("node_modules/.bin/next", "start", "--hostname", "localhost", "--port", str(port)),
            cwd=EXAMPLES / "nextjs",
            env=os.environ | addresses | {"NEXT_TELEMETRY_DISABLED": "1"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await wait_until_served(url, process)
            yield NextExample(environment, url, identity)
        finally:
            process.terminate()
            await process.wait()


async def wait_until_served(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            assert process.returncode is None, "the server has exited"
            try:
                assert (await client.get(url)).status_code == 200
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
    raise AssertionError("the server does not respond")


@pytest.fixture(scope="module")
def next_build() -> None:
    build(EXAMPLES / "nextjs")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def next_app(next_build: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NextExample]:
    """Its access tokens expire at once: each request refreshes them."""
    async with next_example(tmp_path_factory.mktemp("next"), access_token_seconds=5) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "vite-react", "nextjs"])
async def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Example]:
    folder = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "plain":
            opened = static_example("plain", ".", folder)
        case "vite-react":
            opened = static_example("vite-react", "dist", folder)
        case _:
            request.getfixturevalue("next_build")
            opened = next_example(folder)
    async with opened as example:
        yield example


async def test_two_tabs_call_each_other_and_sign_out(example: Example) -> None:
    async with example.environment.profile() as one, example.environment.profile() as two:
        alice, bob = await example.open(one), await example.open(two)
        await example.sign_in(alice, "alice")
        address = await example.sign_in(bob, "bob")

        await dial(alice, address)
        await wait_for_call(bob, "ringing")
        await press(bob, "Answer")
        await asyncio.gather(wait_for_call(alice, "active"), wait_for_call(bob, "active"))
        await press(alice, "Hang up")
        await asyncio.gather(wait_for_the_end_of_the_call(alice), wait_for_the_end_of_the_call(bob))
        for page in (alice, bob):
            await press(page, "Sign out")
            await page.get_by_role("button", name="Sign in").wait_for()

        assert example.environment.telnyx.live() == []
        await eventually(lambda: example.registrations() == [], WAIT_SECONDS)


async def test_microphone_that_cannot_be_used_is_reported(example: Example) -> None:
    async with example.environment.profile() as context:
        await context.add_init_script(
            'navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("denied", "NotAllowedError"))'
        )
        page = await example.open(context)
        address = await example.sign_in(page, "alice")

        await dial(page, address)

        await page.get_by_role("alert").get_by_text("Microphone access denied").wait_for()
        await wait_for_the_end_of_the_call(page)


async def test_page_without_the_service_reports_it_and_recovers(example: Example) -> None:
    async with example.environment.profile() as context:
        page = await example.open(context)
        await page.route("**/v1/telephony-credentials", lambda route: route.abort())
        await example.begin_sign_in(page, "alice")
        await page.get_by_role("alert").get_by_text("There is no network connection").wait_for()

        await page.unroute("**/v1/telephony-credentials")

        await wait_for_state(page, "ready")
        assert await page.get_by_role("alert").all_inner_texts() in ([], [""])


async def test_signed_out_user_can_sign_in_again(example: Example) -> None:
    async with example.environment.profile() as context:
        page = await example.open(context)
        first = await example.sign_in(page, "alice")
        await press(page, "Sign out")
        await page.get_by_role("button", name="Sign in").wait_for()

        assert await example.sign_in(page, "bob") != first


# -- Next.js: sign-in with OpenID Connect -----------------------------------------------------------------------------


async def test_tabs_of_a_browser_share_the_session(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        first = await next_app.sign_in(await next_app.open(context), "alice")
        tab = await next_app.open(context)
        await wait_for_state(tab, "ready")

        assert await tab.inner_text("#address") != first
        await eventually(lambda: len(next_app.registrations()) == 2, WAIT_SECONDS)


async def test_concurrent_requests_share_a_refresh(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        await next_app.sign_in(page, "alice")
        # Without `no-store`, Chromium sends requests for the same URL one after the other.
        statuses = await page.evaluate(
            """async () => {
              const request = () => fetch("/auth/token?user=alice", { cache: "no-store" });
              const answers = await Promise.all(Array.from({ length: 6 }, request));
              return answers.map(({ status }) => status);
            }"""
        )

        assert statuses == [200] * 6


async def test_page_does_not_store_tokens(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        await next_app.sign_in(page, "alice")
        stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")

        assert "eyJ" not in stored
        assert [cookie["httpOnly"] for cookie in await context.cookies(next_app.url)] == [True]


async def test_ended_session_is_reported_and_the_next_sign_in_keeps_the_address(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        address = await next_app.sign_in(page, "alice")
        await (await context.new_page()).goto(f"{next_app.identity}/end_session")
        await press(page, "Sign out")  # requests an access token
        await page.get_by_role("alert").get_by_text("Your session has ended").wait_for()

        assert await next_app.sign_in(page, "alice") == address


async def test_tab_never_uses_the_session_of_another_user(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        of_alice, of_bob = await next_app.open(context), await next_app.open(context)
        await next_app.sign_in(of_alice, "alice")
        await next_app.sign_in(of_bob, "bob")

        await press(of_alice, "Sign out")

        await of_alice.get_by_role("alert").get_by_text("Your session has ended").wait_for()
        await of_bob.reload()
        await of_bob.get_by_text("Signed in as Bob").wait_for()


async def test_cancelled_sign_in_is_reported(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        await press(page, "Sign in")
        await page.get_by_role("link", name="Cancel").click()

        await page.get_by_role("alert").get_by_text("You cancelled the sign-in").wait_for()


async def test_callback_without_a_sign_in_is_rejected(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        await page.goto(f"{next_app.url}/auth/callback?code=stolen&state=stolen")

        await page.get_by_role("alert").get_by_text("The sign-in failed").wait_for()


async def test_page_without_the_token_route_reports_it_and_recovers(next_app: NextExample) -> None:
    async with next_app.environment.profile() as context:
        page = await next_app.open(context)
        await page.route("**/auth/token*", lambda route: route.fulfill(status=503))
        await next_app.begin_sign_in(page, "alice")
        await page.get_by_role("alert").get_by_text("There is no network connection").wait_for()

        await page.unroute("**/auth/token*")

        await wait_for_state(page, "ready")


async def test_unavailable_identity_provider_is_reported(next_build: None, tmp_path: Path) -> None:
    async with next_example(tmp_path, is_identity_available=False) as app, app.environment.profile() as context:
        page = await app.open(context)
        await press(page, "Sign in")

        await page.get_by_role("alert").get_by_text("The sign-in service is unavailable").wait_for()

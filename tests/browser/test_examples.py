"""The applications in `examples/`, built by their own commands, in a real browser: two tabs call each other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.browser import BrowserEnvironment, browser_environment, skip_without, token_for
from tests.support.http_server import DeferredApp, serve

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

    async def sign_in(self, page: Page, user: str) -> str:
        """Sign in, wait until the page is registered, and return its address."""
        await page.get_by_label("User").select_option(user)
        await press(page, "Sign in")
        await page.wait_for_function("document.querySelector('#state')?.textContent === 'ready'")
        return await page.inner_text("#address")

    def registrations(self) -> list[str]:
        return self.environment.telnyx.sandbox.exchange.registrations()


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def dial(page: Page, address: str) -> None:
    await page.fill("#to", address)
    await press(page, "Call")


async def wait_for_call(page: Page, state: str) -> None:
    await page.wait_for_function("(state) => document.querySelector('#call-state')?.textContent === state", arg=state)


async def wait_for_the_end_of_the_call(page: Page) -> None:
    await page.get_by_role("button", name="Hang up").wait_for(state="hidden")


async def build(folder: Path) -> None:
    """Skips if the example's packages are not installed; fails in CI."""
    if not (folder / "node_modules" / "dialtone-client" / "dist").exists():
        skip_without(f"the packages of {folder.name} are not installed: `make examples-test` installs them")
    process = await asyncio.create_subprocess_exec("npm", "run", "build", "--silent", cwd=folder)
    assert await process.wait() == 0


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


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[("plain", "."), ("vite-react", "dist")], ids=lambda param: param[0]
)
async def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Example]:
    name, served = request.param
    await build(EXAMPLES / name)
    app = DeferredApp()
    async with serve(app) as url, browser_environment(tmp_path_factory.mktemp(name), origin=url) as environment:
        _, config = await token_for(environment, "alice")
        app.app = pages(EXAMPLES / name / served, {DIALTONE: config["service"], IDENTITY: config["identity"]})
        yield Example(environment, url)


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

        assert example.registrations() == []
        assert example.environment.telnyx.live() == []


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
        await page.get_by_label("User").select_option("alice")
        await press(page, "Sign in")
        await page.get_by_role("alert").get_by_text("There is no network connection").wait_for()

        await page.unroute("**/v1/telephony-credentials")

        await page.wait_for_function("document.querySelector('#state').textContent === 'ready'")
        assert await page.get_by_role("alert").all_inner_texts() in ([], [""])


async def test_signed_out_user_can_sign_in_again(example: Example) -> None:
    async with example.environment.profile() as context:
        page = await example.open(context)
        first = await example.sign_in(page, "alice")
        await press(page, "Sign out")
        await page.get_by_role("button", name="Sign in").wait_for()

        assert await example.sign_in(page, "bob") != first

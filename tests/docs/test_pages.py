"""The documentation site in Chromium: search, two widths, two colour schemes, no request to another host."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect
from starlette.staticfiles import StaticFiles

from tests.docs.site import SITE
from tests.support.browser import CHROMIUM_FLAGS, SCREENSHOT_FOLDER, chromium_or_skip
from tests.support.http_server import serve

WIDTHS = (360, 1280)
PAGES = (
    "",
    "docs/configuration/",
    "docs/identity-providers/hosted/",
    "docs/metrics/",
    "docs/cli-reference/",
    "docs/events-reference/",
)
SEARCH_MILLISECONDS = 30_000
"""Time to load the index of the search, before which there is no field to type in."""


@dataclass
class Site:
    url: str
    browser: Browser
    foreign: list[str] = field(default_factory=list)
    """Addresses of other hosts that a page requested."""

    async def open(self, path: str, width: int = 1280, scheme: str = "light") -> Page:
        page = await self.browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        page.on("request", self._note)
        await page.goto(self.url + "/" + path)
        return page

    def _note(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc and not request.url.startswith("data:"):
            self.foreign.append(request.url)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    chromium = await chromium_or_skip()
    async with serve(StaticFiles(directory=SITE, html=True)) as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield Site(url, browser)
        await browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
async def test_page_fits_the_width(site: Site, width: int, scheme: str) -> None:
    for path in PAGES:
        page = await site.open(path, width, scheme)

        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path

        name = path.strip("/").replace("/", "-") or "home"
        if SCREENSHOT_FOLDER.is_dir():
            await page.screenshot(path=SCREENSHOT_FOLDER / f"site-{name}-{width}-{scheme}.png")
        await page.close()


async def test_search_finds_a_setting(site: Site) -> None:
    page = await site.open("")

    await page.keyboard.press("/")
    await expect(page.get_by_role("combobox", name="Search")).to_be_focused(timeout=SEARCH_MILLISECONDS)
    await page.keyboard.type("DIALTONE_CORS_ORIGINS", delay=20)

    await page.wait_for_selector("a[href$='docs/browser/?h=DIALTONE_CORS_ORIGINS#cors']:visible")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Keycloak", "identity-providers/self-hosted/?h=Keycloak#keycloak"),
        ("Vue", "clients/js/?h=Vue#vue-svelte-and-angular"),
        ("nginx", "deploy/?h=nginx#nginx"),
        ("Cloud Run", "docs/container/?h=Cloud+Run#google-cloud-run"),
    ],
)
async def test_search_finds_the_heading_of_a_recipe(site: Site, words: str, found: str) -> None:
    page = await site.open("")

    await page.keyboard.press("/")
    await page.get_by_role("combobox", name="Search").fill(words)

    await page.wait_for_selector(f"a[href$='{found}']:visible")


@pytest.mark.timeout(600)  # opens every page
@pytest.mark.parametrize("width", WIDTHS)
async def test_no_page_scrolls_sideways(site: Site, width: int) -> None:
    page = await site.open("", width)
    wide = []
    for file in sorted(SITE.rglob("index.html")):
        path = file.parent.relative_to(SITE)
        await page.goto(f"{site.url}/{path}/")
        if await page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(str(path))

    assert wide == []


async def test_site_requests_no_other_host(site: Site) -> None:
    for path in PAGES:
        page = await site.open(path)
        await page.wait_for_load_state("networkidle")

    assert site.foreign == []


@pytest.mark.parametrize("width", WIDTHS)
async def test_name_in_a_table_is_on_one_line(site: Site, width: int) -> None:
    page = await site.open("docs/metrics/", width)

    lines = await page.eval_on_selector_all(
        "td:first-child code", "codes => codes.map(code => code.getClientRects().length)"
    )

    assert set(lines) == {1}


async def test_steps_around_code_are_one_list(site: Site) -> None:
    page = await site.open("docs/identity-providers/")

    assert await page.locator(".md-typeset > ol").first.locator(":scope > li").count() == 5


async def test_readme_of_a_folder_is_in_the_navigation(site: Site) -> None:
    page = await site.open("docs/browser/")

    assert (
        await page.locator(".md-sidebar--primary").get_by_role("link", name="dialtone-client", exact=True).is_visible()
    )

"""The built documentation site: every link has a target, and nothing is loaded from another host."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.site import SITE

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href"}
"""Elements whose file a browser loads with the page."""

NOT_LOADED = {"canonical", "next", "prev", "edit"}
"""Values of `rel` of a `link` element that is only a reference."""


@dataclass
class Parsed(HTMLParser):
    """The ids, links and loaded files of a page."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values and values.get("rel") not in NOT_LOADED:
            self.loaded.append(values[LOADED[tag]])


@cache
def parsed(file: Path) -> Parsed:
    page = Parsed()
    page.feed(file.read_text())
    return page


def pages() -> list[Path]:
    """All pages but the error page, whose links begin at the root of a host."""
    return sorted(file for file in SITE.rglob("*.html") if file.name != "404.html")


def broken_links(file: Path, site: Path) -> Iterator[str]:
    for link in parsed(file).links:
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (file.parent / unquote(url.path)).resolve() if url.path else file
        target = target / "index.html" if target.is_dir() else target
        is_there = target.is_relative_to(site) and target.exists()
        if not is_there or (
            url.fragment and target.suffix == ".html" and unquote(url.fragment) not in parsed(target).ids
        ):
            yield link


def files_of_other_hosts(file: Path) -> list[str]:
    return [address for address in parsed(file).loaded if urlsplit(address).netloc]


@pytest.mark.parametrize("file", pages(), ids=lambda file: str(file.relative_to(SITE)))
def test_every_link_has_a_target(file: Path) -> None:
    assert list(broken_links(file, SITE)) == []


@pytest.mark.parametrize("file", pages(), ids=lambda file: str(file.relative_to(SITE)))
def test_page_loads_no_file_of_another_host(file: Path) -> None:
    assert files_of_other_hosts(file) == []


def test_broken_links_and_foreign_files_are_found(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(
        '<h1 id="top"><a href="#top">1</a><a href="#gone">2</a><a href="gone/">3</a><a href="../">4</a>'
        '<script src="https://cdn.example/a.js"></script><link rel="canonical" href="https://example.com/">'
    )

    assert list(broken_links(page, tmp_path)) == ["#gone", "gone/", "../"]
    assert files_of_other_hosts(page) == ["https://cdn.example/a.js"]


def test_site_has_every_page_of_the_documentation() -> None:
    assert len(pages()) > 40

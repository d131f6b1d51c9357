"""Relative links in the repository's Markdown files: the file exists, and so does the heading that an anchor names."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]


def markdown_files() -> list[Path]:
    """Every Markdown file of the repository, without those of packages, the built site and hidden folders."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("build", "node_modules") and name[0] != "."]
        found += [Path(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


def text_without_code(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of the file's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", text_without_code(path), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known) is not None for known in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken_links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", text_without_code(path))
    broken = []
    for link in re.findall(r"\]\(<?([^)>\s]+)>?\)", text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / unquote(name)).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_resolve(path: Path) -> None:
    assert broken_links(path) == []


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Push: `lint` & co\n\n## Limits\n\n```\n# no heading\n```\n\n## Limits\n\n## [A b](c.md)?\n")

    assert anchors(page) == {"push-lint--co", "limits", "limits-1", "a-b"}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](#there) [c](page.md#here) [d](no.md) [e](https://e.org/) `[f](no.md)`\n")

    assert broken_links(page) == ["#there", "no.md"]

"""Code of the pages below docs/mobile: it parses, and handles every kind of response."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_kotlin
import tree_sitter_swift
from tree_sitter import Language, Node, Parser

PAGES = Path(__file__).parents[2] / "docs" / "mobile"
GRAMMARS = {"swift": tree_sitter_swift, "kotlin": tree_sitter_kotlin}


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def errors(node: Node) -> Iterator[int]:
    """The lines that the grammar does not accept."""
    if node.is_error or node.is_missing:
        yield node.start_point.row + 1
    for child in node.children:
        yield from errors(child)


def faulty_lines(language: str, code: str) -> list[int]:
    parser = Parser(Language(GRAMMARS[language].language()))
    return list(errors(parser.parse(code.encode()).root_node))


@pytest.mark.parametrize("language", GRAMMARS)
def test_code_is_accepted_by_the_grammar(language: str) -> None:
    found = snippets(f"{language}.md", language)

    assert len(found) == 2
    assert [faulty_lines(language, code) for code in found] == [[], []]


@pytest.mark.parametrize("language", GRAMMARS)
def test_invalid_code_is_reported(language: str) -> None:
    code = snippets(f"{language}.md", language)[0]

    assert faulty_lines(language, code.replace("{", "", 1))


@pytest.mark.parametrize(
    ("page", "language"), [("swift.md", "swift"), ("kotlin.md", "kotlin"), ("flutter.md", "dart")], ids=str
)
@pytest.mark.parametrize(
    "handled", ["401", "403", "429", "503", "retry-after", "problem", "code", "retryable", "usable_?at", "server_?time"]
)
def test_code_handles_each_kind_of_response(page: str, language: str, handled: str) -> None:
    code = "".join(snippets(page, language))

    assert re.search(handled, code, re.IGNORECASE)


@pytest.mark.parametrize("handled", ["DialtoneError", "not_signed_in", r"error\.code", r"source\.get\(\)"])
def test_react_native_code_handles_errors_of_the_token_source(handled: str) -> None:
    (code,) = snippets("react-native.md", "ts")

    assert re.search(handled, code)


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.iterdir()))
def test_page_tells_which_code_was_not_run(page: str) -> None:
    assert "on a phone" in (PAGES / page).read_text("utf-8")

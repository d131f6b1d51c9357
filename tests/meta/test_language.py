"""The text of the repository avoids the constructions of `tests.support.language`."""

from pathlib import Path

import pytest

from tests.support.language import ROOT, count, files, findings

ALLOWED: dict[tuple[str, str], str] = {
    ("app/adapters/ledger/tables.py", "nobody"): "the name of an index that a released migration created",
    ("migrations/versions/0004_pool.py", "nobody"): "the name of an index that a released migration created",
}
"""Path and construction, with the reason why it may stay."""


@pytest.mark.parametrize("path", files())
def test_text_is_plain_english(path: str) -> None:
    found = [finding for finding in findings(ROOT / path) if (path, finding.construction.name) not in ALLOWED]

    assert not found, "\n".join([path, *map(str, found)])


def test_every_exception_is_needed() -> None:
    needed = {(path, finding.construction.name) for path, _ in ALLOWED for finding in findings(ROOT / path)}

    assert ALLOWED.keys() <= needed, "remove the stale exceptions"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""Nobody reads this."""\n', "nobody"),
        ("a.py", "# A long comment that goes\n# on in the next line.\n", "goes on"),
        ("a.py", "def test_token_of_nobody() -> None: ...\n", "nobody"),
        ("a.py", 'log.info("served_anew")\n', "anew"),
        ("a.ts", "const message = 'The key is away';\n", "away"),
        ("a.mjs", "/** Fetches the login anew. */\n", "anew"),
        ("a.html", '<p title="Who is there">text</p>\n', "Who ..."),
        ("a.json", '{"info": {"description": "Logins of nobody."}}\n', "nobody"),
        ("a.md", "# Title\n\nThe service\ngoes on.\n", "goes on"),
        ("a.md", "| a | Who fails is logged. |\n", "Who ..."),
        ("a.md", "It failed. What Telnyx does not document is an assumption.\n", "What ... as subject"),
        ("a.toml", "# The key that nobody knows.\nvalue = 1\n", "nobody"),
        ("Makefile", "build: ## Write the file anew\n", "anew"),
    ],
)
def test_construction_is_found_in_each_kind_of_file(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)

    assert [finding.construction.name for finding in findings(path)] == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "The user who sent the token is known.",
        "Who may call this operation?",
        "What Dialtone stores",
        "What to expect",
        "# What was not verified\n\nText.",
        "Look for `telnyx_error` in the log.",
        "`wanted` is a parameter, and tests/nobody/file.py a path.",
        "The token was used before.",
    ],
)
def test_plain_sentence_has_no_finding(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text + "\n")

    assert findings(path) == []


def test_occurrences_are_counted_by_construction() -> None:
    counts = count(ROOT / "deploy")  # each file of the repository has a test of its own

    assert counts
    assert set(counts.values()) == {0}

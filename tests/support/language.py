"""The sentences of the repository, and the constructions that its English does not use.

`python -m tests.support.language [ROOT]` prints the number of occurrences of each construction below ROOT.
"""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Construction:
    """A word or phrase that the text does not use, and the plain English to use instead."""

    name: str
    pattern: re.Pattern[str]
    instead: str


class Passage(NamedTuple):
    """A sentence, paragraph or label, and the line on which it starts."""

    line: int
    text: str


class Finding(NamedTuple):
    """A construction in a passage. `excerpt` is the match with its surroundings."""

    line: int
    construction: Construction
    excerpt: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.construction.name!r} in «{self.excerpt}»: {self.construction.instead}"


def _phrase(name: str, pattern: str, instead: str) -> Construction:
    """A pattern that is matched as whole words, in upper or lower case, but not inside names, paths and links."""
    pattern = pattern.replace(" ", r"\s+")
    return Construction(name, re.compile(rf"(?<![\w/.`#=-])(?:{pattern})(?![\w/=-]|\.\w)", re.IGNORECASE), instead)


def _opening(name: str, pattern: str, instead: str) -> Construction:
    """A pattern at the start of a sentence that is not a question."""
    return Construction(name, re.compile(rf"(?:^|(?<=[.:;!]\s))(?:{pattern})\b(?![^.?!]*\?)"), instead)


CONSTRUCTIONS = (
    _opening("Who ...", "Who", "name the actor: 'A caller that ...', 'Users without ...'"),
    _opening(
        "What ... as subject",
        r"What(?:ever)?(?! (?:Dialtone|you|is|are|happens)\b)(?=\b[^.?!]*[.!](?:\s|$))",
        "use a noun; headings and labels, which have no full stop, may begin with 'What'",
    ),
    _phrase("whoever", "who(?:so)?ever", "name the actor"),
    _phrase("nobody", "nobody|no one|no-one", "'no user', 'no operator', 'no client'"),
    _phrase("somebody", "(?:somebody|someone)(?:'s| else)?", "name the actor"),
    _phrase("everybody", "everybody|everyone|anybody|anyone", "'all users', 'every client'"),
    _phrase("so many", "so many|so much as", "give the number, or its name"),
    _phrase("anew", "anew|afresh", "'again', or the exact verb: 'recreate', 'rewrite', 'regenerate'"),
    _phrase("goes on", "go(?:es)? on|going on|went on", "'continues'"),
    _phrase("is had", "(?:can(?:not)? be|to be|is|are|was|were) had", "'is available', 'is unavailable'"),
    _phrase("at hand", "(?:at|in) hand", "'cached', 'available'"),
    _phrase("away", "(?:is|are|was|were|be|being|been|stays?|stayed|goes|go) away", "'unavailable'"),
    _phrase("given away", "(?:give|gives|gave|given|giving) (?:it |them )?away", "'returned', 'issued'"),
    _phrase("mend", "mend(?:s|ed|ing)?", "'fix', 'repair', 'restore'"),
    _phrase("turned away", r"turn(?:s|ed|ing)? (?:\w+ )?away", "'rejected'"),
    _phrase("told", "told", "'logged', 'recorded', 'notified', 'reported'"),
    _phrase("figures", "figures?", "'metrics', 'measurements', 'numbers'"),
    _phrase("let in", r"(?:let|lets|letting) (?:\w+ )?(?:in|through|past)", "'admitted', 'allowed'"),
    _phrase("waits outside", "(?:wait|waits|waited|waiting) outside", "'queued'"),
    _phrase("crowd", "crowds?|crowded", "'many connections', or the number"),
    _phrase("stranger", "strangers?", "'unauthenticated clients', 'callers with invalid tokens'"),
    _phrase("the like", "(?:and|or) the like|and such|and so on|what not", "list the things"),
    _phrase("spared", "spare[sd]?|sparing", "'avoided', 'saved'"),
    _phrase("passes it by", r"pass(?:es|ed)? (?:\w+ )?by", "'bypasses'; for time: 'elapses'"),
    _phrase("in vain", "in vain|to no avail", "name the failure"),
    _phrase("is to be", "(?:is|are|was|were) to be", "'must be', 'will be'"),
    _phrase("comes back", "(?:come|comes|came|coming) back", "'retries', 'reconnects', 'recovers'"),
    _phrase("comes in", "(?:comes|came) in", "'arrives', 'is received'"),
    _phrase("wants", "want|wants|wanted|wanting", "'requires', 'needs', 'requested'"),
    _phrase("shut out", r"(?:shut|shuts|shutting|lock|locks) (?:\w+ )?out", "'denied', 'blocked'"),
    _phrase("sees to it", "(?:see|sees|saw|seen) to", "name the action: 'retries', 'deletes'"),
    _phrase("gone bad", "(?:go|goes|gone|went|going) (?:bad|wrong|stale)", "'failed', 'expired', 'invalid'"),
    _phrase("says no", "(?:say|says|said|saying) (?:no|yes|so|nothing)", "'rejects', 'denies', 'reports it'"),
    _phrase("stands for", "(?:stand|stands|stood|standing) (?:for|in|there)", "'represents', 'is in'"),
    _phrase("in force", "in force", "'enforced', 'current', 'effective'"),
    _phrase("taken for", "(?:take|takes|took|taken) (?:it |them )?for|mistaken", "'treated as'"),
    _phrase("looks for", "(?:looks|looked|looking) for", "'searches for', 'checks'"),
    _phrase(
        "archaic words",
        "seldom|oft|ere|lest|thus|hence|whence|thereof|whereof|thereby|herein|hitherto|of late|long since",
        "the everyday word: 'rarely', 'therefore', 'recently'",
    ),
    _phrase("to the letter", "to the letter|to the full|for good|at will", "'exactly', 'permanently'"),
    _phrase("has a turn", "(?:have|has|had|get|gets|got|waits? for) (?:a|its|their|his) turn", "'gets a call slot'"),
    _phrase("once more", "once more|yet again|time and again", "'again', 'retries'"),
    _phrase("brand-new", "brand-new", "'new'"),
    _phrase("simply", "simply|just|easily|obviously|of course", "leave it out, or say 'only'"),
    _phrase(
        "marketing", "blazing(?:ly)?|seamless(?:ly)?|powerful|effortless(?:ly)?|cutting-edge|world-class", "measure"
    ),
)
"""Each construction with its replacement. Relative clauses such as "the user who sent it" are allowed."""

NOT_OURS = {"clients/js/src/openapi.ts", "tests/support/language.py", "tests/meta/test_language.py"}
"""Generated or third-party text, and the patterns themselves."""

COMMENTED = {
    ".conf",
    ".cfg",
    ".env",
    ".example",
    ".in",
    ".ini",
    ".mako",
    ".service",
    ".sh",
    ".toml",
    ".yaml",
    ".yml",
    "",
}
"""Files whose comments start with `#`. Their other lines are read too: they hold messages and labels."""

SCRIPTS = {".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".swift", ".kt", ".dart", ".lua", ".css"}

JSON_TEXTS = {"description", "summary", "title", "message", "content", "text"}
"""Keys of JSON documents whose values are sentences or labels."""


def files(root: Path = ROOT) -> list[str]:
    """Paths below `root` of the tracked files that contain our text."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, check=True)
    paths = [path for path in listed.stdout.decode().splitlines() if (root / path).is_file()]
    return [path for path in paths if _is_text_of_ours(path)]


def _is_text_of_ours(path: str) -> bool:
    name = Path(path)
    parts = set(name.parts)
    if path in NOT_OURS or parts & {"node_modules", "results", "vectors", "LICENSE"} or "lock" in name.name:
        return False
    return name.suffix in {".py", ".md", ".html", ".json"} | SCRIPTS | COMMENTED


def findings(path: Path) -> list[Finding]:
    """The constructions in one file."""
    found = []
    for line, text in passages(path):
        for construction in CONSTRUCTIONS:
            for match in construction.pattern.finditer(text):
                excerpt = text[max(0, match.start() - 40) : match.end() + 40].strip()
                found.append(
                    Finding(line + text.count("\n", 0, match.start()), construction, " ".join(excerpt.split()))
                )
    return found


def count(root: Path = ROOT) -> dict[str, int]:
    """The number of occurrences of each construction below `root`."""
    counts = Counter({construction.name: 0 for construction in CONSTRUCTIONS})
    counts.update(finding.construction.name for path in files(root) for finding in findings(root / path))
    return dict(counts)


def passages(path: Path) -> Iterator[Passage]:
    """The sentences of one file: all of a document, the comments and strings of a program."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python(text)
    elif path.suffix in SCRIPTS:
        yield from _script(text)
    elif path.suffix == ".html":
        yield from _html(text)
    elif path.suffix == ".json":
        yield from _json(text)
    elif path.suffix == ".md":
        yield from _markdown(text)
    else:
        yield from _commented(text)


def _python(text: str) -> Iterator[Passage]:
    """Comments, strings, and names of tests as words. Adjacent lines of comments are one passage.

    A string of one word is the name of a parameter, a key or a value.
    """
    comments = [
        token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT
    ]
    yield from _joined([(token.start[0], token.string.lstrip("#: ")) for token in comments])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isalnum():
            yield Passage(node.lineno, _words(node.value))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield Passage(node.lineno, _words(node.name))


def _joined(lines: list[tuple[int, str]]) -> Iterator[Passage]:
    passage: Passage | None = None
    for number, line in lines:
        if passage and number == passage.line + passage.text.count("\n") + 1:
            passage = Passage(passage.line, f"{passage.text}\n{line}")
        else:
            if passage:
                yield passage
            passage = Passage(number, line)
    if passage:
        yield passage


def _words(text: str) -> str:
    """Names such as `lease_expired` as words."""
    return text.replace("_", " ") if re.fullmatch(r"[a-z][a-z0-9_]*", text) else text


SCRIPT_TEXT = re.compile(
    r"""/\*(?P<block>.*?)\*/ | (?<!:)//(?P<line>[^\n]*) | ^\s*--(?P<lua>[^\n]*)
        | (?P<quote>["'`])(?P<string>(?:\\.|(?!(?P=quote)).)*)(?P=quote)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


def _script(text: str) -> Iterator[Passage]:
    comments = []
    for match in SCRIPT_TEXT.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        line = match["line"] if match["line"] is not None else match["lua"]
        if line is not None:
            comments.append((number, line.strip("/! ")))
        elif match["block"] is not None:
            yield Passage(number, re.sub(r"(?m)^\s*\*+ ?", "", match["block"]).strip("* "))
        else:
            yield Passage(number, _words(match["string"]))
    yield from _joined(comments)


class _HtmlTexts(HTMLParser):
    """Collects texts, and attributes that a browser shows or reads aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Passage] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = {"alt", "aria-label", "content", "placeholder", "title"}
        self.found += [Passage(self.getpos()[0], value) for name, value in attrs if name in shown and value]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append(Passage(self.getpos()[0], data))

    def handle_comment(self, data: str) -> None:
        self.handle_data(data)


def _html(text: str) -> Iterator[Passage]:
    parser = _HtmlTexts()
    parser.feed(text)
    yield from parser.found


def _json(text: str) -> Iterator[Passage]:
    """Values of the keys that hold texts, each with the line of its first occurrence."""

    def texts(value: Any, key: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from texts(item, name)
        elif isinstance(value, list):
            for item in value:
                yield from texts(item, key)
        elif isinstance(value, str) and key in JSON_TEXTS:
            yield value

    for found in texts(json.loads(text)):
        yield Passage(text.count("\n", 0, max(0, text.find(json.dumps(found, ensure_ascii=False)))) + 1, found)


BLOCK_START = re.compile(r"\s*(?:#|[-*] |\d+\. |\||>|```|$)")


def _markdown(text: str) -> Iterator[Passage]:
    """Paragraphs, list items, headings and cells of tables."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if BLOCK_START.match(line):
            yield from _joined(block)
            block = []
        if line.lstrip().startswith("|"):
            yield from (Passage(number, cell.strip()) for cell in line.strip().strip("|").split("|"))
        else:
            block.append((number, re.sub(r"^\s*(?:#+|[-*]|\d+\.|>)?\s*", "", line)))
    yield from _joined(block)


def _commented(text: str) -> Iterator[Passage]:
    """Adjacent lines of comments are one passage; every other line is one."""
    comments = []
    for number, line in enumerate(text.splitlines(), 1):
        before, mark, comment = line.partition("#")
        if mark and not before.strip():
            comments.append((number, comment.lstrip("# ")))
        elif line.strip():
            yield Passage(number, line.strip())
    yield from _joined(comments)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    counts = count(root)
    width = max(map(len, counts))
    for name, number in counts.items():
        sys.stdout.write(f"{name:{width}} {number:5}\n")
    sys.stdout.write(f"{'sum':{width}} {sum(counts.values()):5}\n")


if __name__ == "__main__":
    main()

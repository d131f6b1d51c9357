"""Indents the blocks inside list items by four spaces, as Python-Markdown requires.

Run `python docs/site/lists.py FOLDER`. It rewrites the Markdown files in the folder.

In the repository, two or three spaces suffice, because CommonMark counts from the text of the item. If there are fewer
than four, Python-Markdown ends the list.
"""

import re
import sys
from pathlib import Path

ITEM = re.compile(r" *(?:[-*+]|\d+[.)]) +(?=\S)")
FENCE = re.compile(r"`{3,}|~{3,}")
INDENT = 4


def with_wide_indentation(text: str) -> str:
    """The text, with each block that belongs to a list item four spaces to the right of the item."""
    lines: list[str] = []
    columns: list[int] = []
    """Where the text of each open list item begins."""
    fence = ""
    for line in text.split("\n"):
        content = line.lstrip(" ")
        indentation = len(line) - len(content)
        if not content:
            lines.append("")
            continue
        if not fence:
            while columns and indentation < columns[-1]:
                columns.pop()
        item = None if fence else ITEM.match(line)
        extra = 0 if item else max(indentation - (columns[-1] if columns else 0), 0)
        lines.append(" " * (INDENT * len(columns) + extra) + content)
        if marker := FENCE.match(content):
            fence = _after(fence, marker.group(), content)
        elif item:
            columns.append(item.end())
    return "\n".join(lines)


def _after(fence: str, marker: str, content: str) -> str:
    """The fence that is open after a line with this marker."""
    if not fence:
        return marker
    is_end = marker.startswith(fence) and not content.removeprefix(marker).strip()
    return "" if is_end else fence


if __name__ == "__main__":
    for file in Path(sys.argv[1]).rglob("*.md"):
        file.write_text(with_wide_indentation(file.read_text()))

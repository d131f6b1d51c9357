"""Lists of the documentation look on the site as in the repository: blocks inside an item stay in the item."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "site" / "lists.py"
with_wide_indentation = runpy.run_path(str(SCRIPT))["with_wide_indentation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. a\n\n   ```sh\n   b\n     c\n   ```\n\n2. d", "1. a\n\n    ```sh\n    b\n      c\n    ```\n\n2. d"),
        ("1. a:\n   - b\n   - c\n2. d", "1. a:\n    - b\n    - c\n2. d"),
        ("- a\n  - b\n    - c\n- d", "- a\n    - b\n        - c\n- d"),
        ("- a\n  continues\n\n  second paragraph", "- a\n    continues\n\n    second paragraph"),
        ("10. a\n    b", "10. a\n    b"),
    ],
)
def test_block_of_an_item_is_indented_by_four_spaces(text: str, expected: str) -> None:
    assert with_wide_indentation(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b\n\nA paragraph.",
        "- a\ncontinues without indentation\n\n# Heading",
        "```yaml\n- a:\n  - b\n```\n\n- c",
        "~~~\n```\n  - a\n~~~\n",
        "- a\n    - b\n        - c",
        "| a |\n|---|\n| - b |\n",
    ],
)
def test_other_text_does_not_change(text: str) -> None:
    assert with_wide_indentation(text) == text


def test_code_of_an_item_keeps_its_own_indentation() -> None:
    text = "- a\n\n  ```py\n  if b:\n\n      - c\n  ```\n- d"

    assert with_wide_indentation(text) == "- a\n\n    ```py\n    if b:\n\n        - c\n    ```\n- d"

"""The page on extending shows the examples as they are, wherever it is read."""

from __future__ import annotations

import re

from tests.servers import REPOSITORY


def test_the_page_shows_the_example_files() -> None:
    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^`([^`]+\.py)`:\n\n```python\n(.*?)^```", page, re.M | re.S))
    examples = {
        path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
        for path in (REPOSITORY / "examples" / "extensions").glob("*.py")
    }
    assert shown == examples

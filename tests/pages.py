"""Reads the documents, to hold them against what the program does."""

from __future__ import annotations

import re

from tests.servers import REPOSITORY


def explained(page: str, heading: str) -> set[str]:
    """The words in code type below a heading of a page in `docs/`."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)^## ", text, re.M | re.S)
    quoted = re.findall(r"`([^`\n]+)`", section)
    return {word for code in quoted for word in re.findall(r"\w+", code)}

"""What a path that is not there may be meant to be."""

from __future__ import annotations

import difflib
from pathlib import Path


def similar_path(path: Path, pattern: str = "*") -> Path | None:
    """Find the file or folder beside a local path whose name is close to its own.

    Args:
        path: Where nothing is.
        pattern: Glob pattern of the names that count; `*/` are folders.

    Returns:
        None where there is no such name, or the folder cannot be read.
    """
    try:
        names = sorted(found.name for found in path.parent.glob(pattern))
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=1)
    return path.with_name(close[0]) if close else None

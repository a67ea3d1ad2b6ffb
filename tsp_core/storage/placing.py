"""Puts whole objects in their places: written aside and renamed, or made only where none is.

A process that is killed leaves at most a hidden file whose name matches `ASIDE`, which no listing
shows and `tsp prune` removes.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

ASIDE = re.compile(r"\.[0-9a-f]{32}\.tmp")
_CHUNK_BYTES = 8 << 20


@contextmanager
def written_aside(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside the target and rename it into place on success."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield aside
        if replace:
            aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a local file and have it on the disk before it gets its name."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def copy_synced(source: Path, path: Path) -> None:
    """Copy a local file and have it on the disk before it gets its name."""
    with source.open("rb") as original, path.open("wb") as file:
        shutil.copyfileobj(original, file, _CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())


def create(fs: Any, path: str, content: bytes | Path) -> bool:
    """Make an object of a file system of fsspec; False when there is one already.

    It is one step, without a moment between looking and writing, on the local disk, in memory, and
    on stores with conditional writes (S3 and most that speak its language).
    """
    if isinstance(fs, LocalFileSystem):
        return _create_local(Path(path), content)
    if "s3" not in fs.protocol and fs.exists(path):
        return False  # not every file system knows the mode 'create'
    try:
        if isinstance(content, bytes):
            fs.pipe_file(path, content, mode="create")
        else:
            fs.put_file(str(content), path, mode="create")
    except OSError as error:
        # AWS and others differ in how they say that the condition was not met.
        if isinstance(error, FileExistsError) or "PreconditionFailed" in str(error.__cause__):
            return False
        raise
    return True


def _create_local(target: Path, content: bytes | Path) -> bool:
    with written_aside(target, replace=False) as aside:
        if isinstance(content, bytes):
            write_synced(aside, content)
        else:
            copy_synced(content, aside)
        try:
            target.hardlink_to(aside)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if target.exists():
                return False
            aside.replace(target)
    return True

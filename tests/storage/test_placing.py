"""Objects are put in their places whole, also on file systems without hard links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tsp_core import storage
from tsp_core.errors import StorageError
from tsp_core.storage import faults


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A file system that knows no hard links (exFAT, some shares); what was asked of it."""
    asked: list[str] = []

    def link(source: object, target: object, **options: object) -> None:
        asked.append(str(target))
        raise OSError(request.param, os.strerror(request.param), str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", ())
    return asked


@pytest.mark.parametrize("is_file", [False, True])
def test_objects_are_made_without_hard_links(
    refused: list[str], tmp_path: Path, is_file: bool
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"one")
    two.write_bytes(b"other")
    target = tmp_path / "new" / "object"
    for source, is_there in ((one, True), (one, True), (two, False)):
        content = source if is_file else source.read_bytes()
        assert storage.write_new(str(target), content) is is_there
    assert target.read_bytes() == b"one", "what is there is never replaced"
    assert list(target.parent.iterdir()) == [target], "nothing is left aside"
    assert refused == [str(target)] * 3
    assert one.read_bytes() == b"one", "the source is copied, not moved"


@pytest.mark.usefixtures("refused")
def test_a_write_that_fails_leaves_nothing_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"x: cannot write: OSError: .*No space left"):
        storage.write_new(str(tmp_path / "x"), b"new")
    assert list(tmp_path.iterdir()) == []

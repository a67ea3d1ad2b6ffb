"""Tells trouble of the machine, or of where files are kept, from what is wrong with a file.

What the system says when a file is opened and read in the plain way is the system's word. FFmpeg's
errors carry the same numbers, but some of them are also what its code says of damaged content:
a Matroska file that was cut gives "Input/output error", as a bad disk does. Such files are read
through once, in the plain way, to learn which it is.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tsp_core.errors import StorageUnavailableError, VideoError
from tsp_core.isolation import heartbeat
from tsp_core.storage import faults

R = TypeVar("R")

_OF_THE_SYSTEM = frozenset(
    number
    for name in (
        *("EMFILE", "ENFILE", "ESTALE", "ENODEV", "ENOTCONN", "EREMOTEIO", "ETIMEDOUT"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
    if (number := getattr(errno, name, None)) is not None
)
"""What FFmpeg says of a local file only where the system said it."""
_OF_THE_MACHINE = _OF_THE_SYSTEM | {
    *(errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EBUSY),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ENOLCK),
}
"""What others meet as well. The rest may be the matter with one file: a bad sector (EIO, ENODATA),
a damaged inode (EUCLEAN, EBADMSG), no permission, a name that a server does not take (EINVAL)."""
_KEPT_READ, _LOOKED_AT = 64, 32
_CHUNK_BYTES = 1 << 20
_PAUSES_SECONDS = (0.5, 2.0)


class MachineTroubleError(StorageUnavailableError):
    """A file cannot be read now for a reason that is none of the file's; others are hit alike."""


class UnreadableNowError(VideoError):
    """One file cannot be read now (a bad sector, no permission), whatever its content is.

    Its code is `missing`: no verdict on the content, so that the next run tries again.
    """


def plain_trouble(error: OSError, path: Path) -> VideoError | MachineTroubleError:
    """What it means that a file cannot be opened or read in the plain way.

    Args:
        error: What the system said.
        path: The local file.
    """
    if error.errno in _OF_THE_MACHINE:
        return _of_the_machine(error, path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if _is_folder_away(path):
            return MachineTroubleError(
                f"{str(path)!r} cannot be read now: its folder is not there or empty; mount it "
                "again, or run ingest again if the videos are to stay away"
            )
        return VideoError("missing", f"{path.name!r} does not exist")
    fix = "check its permissions" if error.errno in (errno.EACCES, errno.EPERM) else "check it"
    return UnreadableNowError(
        "missing", f"{path.name!r} cannot be read now: {_said(error)}; {fix}, the next run tries it"
    )


@contextmanager
def plainly(path: Path) -> Iterator[None]:
    """Read a local file in the plain way: the system's errors become the project's.

    Raises:
        VideoError: missing: the file is not there, or (`UnreadableNowError`) cannot be read.
        MachineTroubleError: The reason is none of the file's.
    """
    try:
        yield
    except OSError as error:
        raise plain_trouble(error, path) from error


def refuse_trouble(error: Exception, path: Path) -> None:
    """Go on only where an error of FFmpeg's is of the file's content.

    Args:
        error: From opening, reading, seeking in or decoding the file.
        path: The local file.

    Raises:
        VideoError: missing: the file is gone, or (`UnreadableNowError`) cannot be read.
        MachineTroubleError: The reason is none of the file's.
    """
    number = getattr(error, "errno", None)
    if number in _OF_THE_SYSTEM:
        raise _of_the_machine(error, path) from error
    if number in (errno.EIO, errno.ENOENT, errno.EACCES) and not _read.knows(path):
        read_through(path)
        _read.add(path)


def read_through(path: Path) -> None:
    """Read a file from start to end, to see that it can be; errors may pass within seconds.

    Raises:
        VideoError: missing: the file is gone, or (`UnreadableNowError`) cannot be read.
        MachineTroubleError: The reason is none of the file's.
    """
    for pause in _PAUSES_SECONDS:
        try:
            with plainly(path):
                return _read_all(path)
        except (VideoError, MachineTroubleError):
            heartbeat()
            time.sleep(pause)
    with plainly(path):
        return _read_all(path)


def patiently(work: Callable[[], R]) -> R:
    """Do something with a file, again after a pause where the machine was in trouble.

    Raises:
        MachineTroubleError: It was, time after time.
    """
    for delay in faults.RETRY_DELAYS_SECONDS:
        try:
            return work()
        except MachineTroubleError:
            time.sleep(delay)
    return work()


class _Read:
    """Files that were read through lately, in their state: once is enough to know the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, int, int], None] = OrderedDict()

    def knows(self, path: Path) -> bool:
        """Whether it was, and has not changed since."""
        return self._state(path) in self._states

    def add(self, path: Path) -> None:
        """Remember it, and forget the one that was added the longest ago."""
        state = self._state(path)
        with self._lock:
            if state is not None:
                self._states[state] = None
            if len(self._states) > _KEPT_READ:
                self._states.popitem(last=False)

    def _state(self, path: Path) -> tuple[str, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return str(path), found.st_size, found.st_mtime_ns


_read = _Read()


def _read_all(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(_CHUNK_BYTES):
            heartbeat()


def _is_folder_away(path: Path) -> bool:
    """Whether the folder of a file went away with all that was in it, as what is unmounted does.

    An empty folder beside others that hold such files is no such one: there each video, or each
    class, has a folder of its own.
    """
    folder = path.parent
    if _names_in(folder):
        return False
    beside = (folder.parent / name for name in _names_in(folder.parent))
    return not any(
        name.endswith(path.suffix)
        for other in beside
        if other != folder
        for name in _names_in(other)
    )


def _names_in(folder: Path) -> list[str]:
    """Some of the names in a folder; none if it is not there, or is none."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, _LOOKED_AT)]
    except OSError:
        return []


def _of_the_machine(error: Exception, path: Path) -> MachineTroubleError:
    fix = ""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        fix = "; allow more open files (ulimit -n), or lower runtime.workers"
    return MachineTroubleError(f"{str(path)!r} cannot be read now: {_said(error)}{fix}")


def _said(error: Exception) -> str:
    number = getattr(error, "errno", None)
    name = errno.errorcode.get(number, str(number)) if number else type(error).__name__
    return f"{getattr(error, 'strerror', None) or error} ({name})"

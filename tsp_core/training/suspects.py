"""Videos that were being read when a process died: read in workers of their own from then on.

A video that crashes or hangs the decoder takes the process with it that reads it, a loader process
or the trainer, and would do so again at every attempt. So each process notes which video it is
decoding, where the note is found when it is dead, and ends itself when a clip takes too long. From
then on that video is read apart. When it crashes its worker too, that costs its clips alone; when
it does not, it is read as ever, at the price of a process. Either way every clip comes out as it
would have without the death. Other attempts, and other machines, find the names in the store.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsp_core import storage
from tsp_core.errors import ObjectNotFoundError
from tsp_core.training.index import ClipIndex, open_index
from tsp_core.training.job import TrainingJob

_NOTE = struct.Struct("=q")
_NOTHING = -1
_NOTES, _FILE = "reading-*", "suspects.json"
_STDERR = 2


class ReadingNote:
    """This process's note of the video that it is decoding; a clip that hangs ends the process.

    Args:
        folder: Of the training run.
        stall_seconds: Longest time that reading a clip may take.
    """

    def __init__(self, folder: Path, stall_seconds: float) -> None:
        name = _NOTES.replace("*", str(os.getpid()))
        self._fd = os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600)
        self._stall_seconds = stall_seconds

    @contextmanager
    def of(self, video_index: int) -> Iterator[None]:
        """Note a video while a clip of it is decoded."""
        os.pwrite(self._fd, _NOTE.pack(video_index), 0)
        # A thread without Python's lock, so that nothing that a decoder does can stop it.
        faulthandler.dump_traceback_later(self._stall_seconds, exit=True, file=_STDERR)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            os.pwrite(self._fd, _NOTE.pack(_NOTHING), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def collect_suspects(job: TrainingJob) -> frozenset[str]:
    """Take the notes of dead processes of this machine; return the videos that are new in them."""
    folder = Path(job.folder)
    indices = {_noted(path) for path in folder.glob(_NOTES)} - {_NOTHING}
    for path in folder.glob(_NOTES):
        path.unlink()
    if not indices:
        return frozenset()
    names = open_index(folder).videos["video"]
    known = _stored(job)
    found = {str(names[index].as_py()) for index in indices}
    if found - known:
        storage.write_bytes(job.suspects_uri, json.dumps(sorted(known | found)).encode("utf-8"))
    return frozenset(found - known)


def fetch_suspects(job: TrainingJob) -> None:
    """Lay the names of all suspects into the run's folder, for every process of this machine."""
    collect_suspects(job)
    job.path(_FILE).write_text(json.dumps(sorted(_stored(job))), encoding="utf-8")


def suspects(index: ClipIndex) -> frozenset[int]:
    """Rows of the suspects in the index's videos, as far as `fetch_suspects` has laid them out."""
    path = index.folder / _FILE
    names = set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else set()
    videos = index.videos["video"].to_pylist() if names else []
    return frozenset(row for row, name in enumerate(videos) if name in names)


def _noted(path: Path) -> int:
    note = path.read_bytes()
    return int(_NOTE.unpack(note)[0]) if len(note) == _NOTE.size else _NOTHING


def _stored(job: TrainingJob) -> set[str]:
    with contextlib.suppress(ObjectNotFoundError):
        return set(json.loads(storage.read_bytes(job.suspects_uri)))
    return set()

"""Tells files that were cut in the middle of a part, by how their containers are built.

FFmpeg gives what is there of such a part, or leaves it out, without an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_OGG_HEADER_BYTES, _OGG_LARGEST_PAGE = 27, 27 + 255 + 255 * 255
_IVF_HEADER_BYTES, _IVF_FRAME_HEADER_BYTES = 32, 12


def cut_part(path: Path, container: str) -> str | None:
    """Name the part in whose middle a file ends; None where it ends with one.

    A file that was cut between two parts is not told from a whole one.

    Args:
        path: Local file.
        container: FFmpeg's name for its container; of others than MP4 (QuickTime), Ogg and IVF
            nothing is told.
    """
    if container.startswith("mov"):
        return "box" if _is_last_box_cut(path) else None
    if container == "ogg":
        return "page" if _is_last_page_cut(path) else None
    if container == "ivf":
        return "frame" if _is_last_frame_cut(path) else None
    return None


def lacks_index(path: Path) -> bool:
    """Whether a file is an MP4 or QuickTime file without all of the box that describes the rest."""
    size = path.stat().st_size
    ends = dict(_boxes(path))
    is_one = bool(ends.keys() & {b"ftyp", b"mdat", b"wide", b"moov"})
    return is_one and not 0 < ends.get(b"moov", 0) <= size


def _is_last_box_cut(path: Path) -> bool:
    return any(end > path.stat().st_size for _, end in _boxes(path))


def _boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Name and end of each of the outer boxes; of the last, the end may lie beyond the file's."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset + 8 <= size:
            file.seek(offset)
            header = file.read(16)
            if not re.fullmatch(rb"[ -~]{4}", header[4:8]):
                return  # no box: something was appended
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            if length == 0:
                length = size - offset  # it stands for the rest of the file
            if length < 8:
                return
            offset += length
            yield header[4:8], offset


def _is_last_page_cut(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 2 * _OGG_LARGEST_PAGE, 0))
        tail = file.read()
    start = tail.rfind(b"OggS\0")
    if start < 0:
        return False  # far more was appended than a page holds
    page = tail[start:]
    if len(page) < _OGG_HEADER_BYTES:
        return True
    num_segments = page[_OGG_HEADER_BYTES - 1]
    lengths = page[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + num_segments]
    whole = _OGG_HEADER_BYTES + num_segments + sum(lengths)
    rest = page[whole:]
    return len(page) < whole or (rest != b"" and b"OggS\0".startswith(rest))


def _is_last_frame_cut(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = int.from_bytes(file.read(_IVF_HEADER_BYTES)[6:8], "little")
        while 0 < offset < size:
            file.seek(offset)
            length = int.from_bytes(file.read(_IVF_FRAME_HEADER_BYTES)[:4], "little")
            offset += _IVF_FRAME_HEADER_BYTES + length
    return offset > size

"""Turned and mirrored pictures are upright when read."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from tests.synthetic import VideoSpec, draw_number, read_numbers, write_video
from tsp_core.video.decode import PictureConverter, opened_video
from tsp_core.video.orientation import upright_degrees
from tsp_core.video.probe import probe

WIDTH, HEIGHT = 96, 64


def stored_picture(number: int, turns: int, *, is_mirrored: bool) -> np.ndarray:
    """What is stored so that turning it, then mirroring it left to right, shows the number."""
    size = (WIDTH, HEIGHT) if turns % 2 == 0 else (HEIGHT, WIDTH)
    shown = draw_number(number, *size)
    return np.rot90(shown[:, ::-1] if is_mirrored else shown, -turns)


def matrix_of(turns: int, *, is_mirrored: bool) -> tuple[int, int, int, int]:
    """The entries a, b, c, d of the display matrix: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)][turns]
    return (-a, b, -c, d) if is_mirrored else (a, b, c, d)


def write_turned(path: Path, turns: int, *, is_mirrored: bool) -> Path:
    """Write a video that a player shows upright, by the display matrix in its header."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(5):
            picture = np.ascontiguousarray(stored_picture(number, turns, is_mirrored=is_mirrored))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    a, b, c, d = (value << 16 for value in matrix_of(turns, is_mirrored=is_mirrored))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: what comes before the matrix
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_nothing_stands_on_its_head(tmp_path: Path, turns: int, is_mirrored: bool) -> None:
    path = write_turned(tmp_path / "a.mp4", turns, is_mirrored=is_mirrored)
    degrees = probe(path).row["rotation_degrees"]
    assert degrees == [0, 90, 180, -90][turns]
    convert = PictureConverter(color="bt601", rotation_degrees=degrees)
    with opened_video(path) as (container, stream):
        found = np.stack([convert(frame) for frame in container.decode(stream)])
    assert read_numbers(found[:, :, ::-1] if is_mirrored else found) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("entries", "degrees"),
    [((-1, 0, 0, 1), 0), ((1, 0, 0, -1), 180), ((-3, 0, 0, 2), 0), ((0, 0, 0, 0), 0)],
)
def test_flips_and_matrices_that_scale(entries: tuple[int, ...], degrees: int) -> None:
    a, b, c, d = entries
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], dtype=np.int32) << 16
    frame: Any = SimpleNamespace(rotation=0, side_data={"DISPLAYMATRIX": matrix.tobytes()})
    assert upright_degrees(frame) == degrees


class UnknownToPyAV:
    """Side data of kinds that are newer than PyAV cannot be read, nor what is beside them."""

    rotation = 90

    @property
    def side_data(self) -> Any:
        raise ValueError("31 is not a valid Type")


def test_unknown_side_data_leave_ffmpegs_own_angle(tmp_path: Path) -> None:
    frame: Any = UnknownToPyAV()
    assert upright_degrees(frame) == 90
    with opened_video(write_video(tmp_path / "a.mp4", VideoSpec(num_frames=1))) as (file, stream):
        assert upright_degrees(next(file.decode(stream))) == 0

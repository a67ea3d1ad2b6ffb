"""How frames are taken from the decoder in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.reliability.fuzz_media import write_damaged
from tsp_core.errors import VideoError
from tsp_core.video.decode import opened_video
from tsp_core.video.passes import needed_frames, several_at_a_time
from tsp_core.video.probe import probe


class Decoder:
    """Gives so many frames of a size; then it fails, where asked to."""

    def __init__(self, count: int, *, size: int, fails: bool = False) -> None:
        self.count, self.size, self.fails = count, size, fails
        self.num_given = 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.count):
            self.num_given += 1
            yield SimpleNamespace(width=self.size, height=self.size, number=number)
        if self.fails:
            raise VideoError("corrupted", "damaged")


def test_small_frames_are_taken_in_groups_and_large_ones_singly() -> None:
    small = Decoder(100, size=320)
    frames = several_at_a_time(iter(small))
    assert next(frames).number == 0
    assert small.num_given == 12  # 3.6 MB as RGB
    assert [frame.number for frame in frames] == list(range(1, 100))
    large = Decoder(3, size=4000)
    next(several_at_a_time(iter(large)))
    assert large.num_given == 1


def test_frames_before_the_damage_are_given() -> None:
    frames = several_at_a_time(iter(Decoder(5, size=320, fails=True)))
    assert [next(frames).number for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(VideoError, match="damaged"):
        next(frames)


def test_frames_are_not_kept_where_the_decoder_draws_over_them(tmp_path: Path) -> None:
    """FFmpeg's MJPEG decoder does so when damage hides that a picture begins."""
    name, _ = write_damaged(tmp_path, 0, 103)
    path = tmp_path / "videos" / f"{name}.avi"
    timeline = probe(path).timeline
    with opened_video(path) as (container, stream):
        straight = [frame.to_ndarray() for frame in container.decode(stream)]

    def differing() -> int:
        kept = list(needed_frames(path, timeline, np.arange(timeline.num_frames), threads=1))
        pairs = zip(kept, straight, strict=True)
        return sum(not np.array_equal(frame.to_ndarray(), expected) for frame, expected in pairs)

    assert differing() > 0, "whoever keeps them gets others"
    given = needed_frames(path, timeline, np.arange(timeline.num_frames), threads=1)
    for frame, expected in zip(given, straight, strict=True):
        assert np.array_equal(frame.to_ndarray(), expected)

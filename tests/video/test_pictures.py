"""How frames are taken from the decoder before they become pictures."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tsp_core.errors import VideoError
from tsp_core.video.pictures import several_at_a_time


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

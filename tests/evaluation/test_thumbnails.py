"""Frames of the original videos as small pictures."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.features.clips import cut, row, video
from tests.synthetic import VideoSpec, write_video
from tests.video.crashing import crash
from tsp_core.config import RuntimeConfig
from tsp_core.evaluation import thumbnails
from tsp_core.evaluation.thumbnails import video_thumbnails
from tsp_core.video.sandbox import DecodingLimits

LIMITS = DecodingLimits.of(RuntimeConfig())


def opened(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG"
    return picture


@pytest.mark.parametrize(("size", "expected"), [((64, 32), (144, 72)), ((32, 64), (36, 72))])
def test_pictures_keep_the_shape_of_the_video(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    width, height = size
    path = tmp_path / "a.mp4"
    write_video(path, VideoSpec(num_frames=20, rate=Fraction(10), width=width, height=height))
    found = video_thumbnails(row(path), count=5, cache_dir=None, limits=LIMITS)
    assert len(found) == 5
    assert {opened(jpeg).size for jpeg in found} == {expected}
    assert max(len(jpeg) for jpeg in found) < 10_000


def test_pictures_are_of_different_times_and_the_same_each_time(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    found = video_thumbnails(facts, count=4, cache_dir=None, limits=LIMITS)
    assert found == video_thumbnails(facts, count=4, cache_dir=None, limits=LIMITS)
    pixels = [np.asarray(opened(jpeg), dtype=np.int64) for jpeg in found]
    assert all(np.abs(one - other).max() > 8 for one, other in itertools.pairwise(pixels))


def test_a_video_that_is_gone_or_damaged_has_none(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    facts = row(path)
    cut(path, path)
    assert video_thumbnails(facts, cache_dir=None, limits=LIMITS) == ()
    path.unlink()
    assert video_thumbnails(facts, cache_dir=None, limits=LIMITS) == ()


def test_a_video_that_crashes_the_decoder_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    monkeypatch.setattr(thumbnails, "draw_thumbnails", crash)
    assert video_thumbnails(facts, cache_dir=None, limits=LIMITS) == ()
    assert "'a.mp4': the decoder crashes on it, twice" in caplog.text

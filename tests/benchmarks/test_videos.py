"""The benchmarks' videos and what is run on them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from benchmarks import flame_graphs, memory
from benchmarks.videos import repeated
from tests.features.clips import video
from tsp_core.config import ClipConfig
from tsp_core.video.probe import probe
from tsp_core.video.sampling import clip_grid


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video(tmp_path_factory.mktemp("short") / "short.mp4")


@pytest.mark.parametrize("times", [1, 3])
def test_a_repeated_video_shows_the_same_frames_again(
    short: Path, tmp_path: Path, times: int
) -> None:
    once = probe(short)
    found = probe(repeated(short, times, tmp_path / "long.mp4"))
    assert found.timeline.num_frames == times * once.timeline.num_frames
    assert found.timeline.frame_rate == once.timeline.frame_rate
    steps = np.diff(found.timeline.pts)
    assert (steps == steps[0]).all()
    count = once.timeline.num_frames
    expected = [start * count + key for start in range(times) for key in once.keyframes]
    assert list(found.keyframes) == expected


def test_the_memory_of_a_step_is_that_of_its_own_process(short: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.pkl"
    probing = memory._peak_mb("probe", short, facts)
    row = pickle.loads(facts.read_bytes())
    assert row["num_frames"] == probe(short).timeline.num_frames
    exporting = memory._peak_mb("export", short, facts)
    assert 10 < probing < exporting  # export loads torch


def test_the_hot_paths_read_every_clip(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flame_graphs, "h264_video", lambda seconds: short)
    num_clips = len(clip_grid(probe(short).timeline, ClipConfig(), 16))
    assert flame_graphs.run_path("export", rounds=2) == 2 * num_clips
    assert flame_graphs.run_path("training", rounds=1) == 25

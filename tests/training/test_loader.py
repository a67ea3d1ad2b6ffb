from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.synthetic import read_numbers
from tests.training.tiny import CLIP, FEATURE_SIZE, make_job
from tsp_core.training import data
from tsp_core.training.data import ClipDataset
from tsp_core.training.index import ClipIndex, open_index
from tsp_core.training.loader import Batch, ClipLoader
from tsp_core.training.samplers import ClipPlan
from tsp_core.video.transforms import normalise_clips


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    return open_index(Path(make_job(tmp_path).folder))


REPOSITORY = Path(__file__).resolve().parents[2]


def make_plan(rows: list[int], ratios: list[float] | None = None) -> ClipPlan:
    count = len(rows)
    return ClipPlan(
        rows=np.array(rows, dtype=np.int64),
        ratios=np.array(ratios if ratios is not None else [0.0] * count),
        tops=np.arange(count, dtype=np.int64) % 5,
        lefts=np.arange(count, dtype=np.int64) % 9,
        flips=np.arange(count) % 2 == 1,
    )


def load(index: ClipIndex, plan: ClipPlan, num_workers: int = 0) -> list[Batch]:
    with closing(make_loader(index, num_workers)) as loader:
        return list(loader.batches(plan, chunks(plan)))


def make_loader(index: ClipIndex, num_workers: int = 0) -> ClipLoader:
    device = torch.device("cpu")
    return ClipLoader(index, CLIP, device=device, num_workers=num_workers, cache_dir=None)


def chunks(plan: ClipPlan) -> Iterator[np.ndarray]:
    return (np.arange(begin, min(begin + 3, len(plan))) for begin in range(0, len(plan), 3))


def test_a_clip_shows_the_frames_of_its_time(index: ClipIndex) -> None:
    dataset = ClipDataset(index.folder, CLIP, None)
    raw = dataset.__getitems__([(1, 0.0), (1, 0.5), (2, 1.0)])
    for clip, start in zip(raw.frames, (1.2, 1.2 + 0.5 * (1.3 - 8 / 15), 4 - 8 / 15), strict=True):
        first = int(start * 15 + 1e-6)
        assert read_numbers(clip.numpy()) == list(range(first, first + 8))
    dataset.close()


def test_batches_carry_labels_crops_flips_and_gvfs_of_their_clips(index: ClipIndex) -> None:
    plan = make_plan([1, 4, 0, 8], [0.0, 0.3, 0.9, 1.0])
    batches = load(index, plan)
    assert [len(batch) for batch in batches] == [3, 1]
    dataset = ClipDataset(index.folder, CLIP, None)
    position = 0
    for batch in batches:
        assert batch.clips.shape == (len(batch), 3, 8, 16, 16)
        assert batch.clips.dtype == torch.float32
        for place in range(len(batch)):
            row = int(plan.rows[position])
            frames = dataset[row, float(plan.ratios[position])].frames
            expected = normalise_clips(
                frames,
                crop_tops=torch.tensor([position % 5]),
                crop_lefts=torch.tensor([position % 9]),
                flips=torch.tensor([position % 2 == 1]),
                crop_size=16,
            )
            assert torch.equal(batch.clips[place], expected[0])
            assert batch.positions[place] == position
            assert batch.action_labels[place] == index.label_indices[row]
            assert batch.region_labels[place] == index.regions[row]
            assert batch.gvf is not None
            assert index.gvf is not None
            assert batch.gvf.shape[1] == FEATURE_SIZE
            assert np.array_equal(batch.gvf[place], index.gvf[index.video_indices[row]])
            position += 1
    assert position == len(plan)


def test_loader_processes_deliver_the_same_for_plan_after_plan(index: ClipIndex) -> None:
    plans = [make_plan([0, 5, 2, 7, 1, 3, 3]), make_plan([8, 6]), make_plan([4, 4, 0, 1])]
    with closing(make_loader(index, num_workers=2)) as loader:
        for plan in plans:
            there = list(loader.batches(plan, chunks(plan)))
            here = load(index, plan)
            assert len(there) == len(here)
            for one, other in zip(there, here, strict=True):
                assert torch.equal(one.clips, other.clips)
                assert np.array_equal(one.positions, other.positions)


@pytest.mark.slow
def test_loader_processes_do_not_outlive_a_killed_trainer(index: ClipIndex) -> None:
    program = [sys.executable, "-m", "tests.training.killed_loader", str(index.folder)]
    with subprocess.Popen(program, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        workers = [int(word) for word in trainer.stdout.readline().split()]
        assert len(workers) == 2
        trainer.kill()
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_broken_video_costs_its_clips_alone(
    index: ClipIndex, caplog: pytest.LogCaptureFixture
) -> None:
    Path(index.video_row(1)["uri"]).write_bytes(b"not a video")
    plan = make_plan([0, 3, 2, 4, 4, 5])  # rows 3 to 5 are of the second video
    with caplog.at_level(logging.WARNING):
        first, second = load(index, plan)
    assert first.positions.tolist() == [0, 2]
    assert first.clips.shape[0] == 2
    assert [(failed.place, "unreadable" in failed.reason) for failed in first.failed] == [(1, True)]
    assert "clip left out: video1 at 0.000 s" in caplog.text
    assert len(second) == 0
    assert len(second.failed) == 3
    blank = second.or_blank()
    assert blank.clips.shape == (1, 3, 8, 16, 16)
    assert blank.action_labels.tolist() == blank.region_labels.tolist() == [-1]
    assert first.or_blank() is first


def test_few_videos_stay_open(index: ClipIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "OPEN_VIDEOS", 2)
    dataset = ClipDataset(index.folder, CLIP, None)
    for row in (0, 3, 6, 9, 0):
        dataset[row, 0.0]
        assert len(dataset._open) <= 2
    dataset.close()
    assert not dataset._open

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.synthetic import read_numbers
from tests.training.tiny import CLIP, FEATURE_SIZE, clips_table, make_job, videos_table
from tsp_core.config import ProxyConfig
from tsp_core.errors import WorkerLostError
from tsp_core.training import data
from tsp_core.training.data import ClipDataset, Request
from tsp_core.training.index import ClipIndex, open_index, write_index
from tsp_core.training.loader import Batch, ClipLoader, _is_loss
from tsp_core.training.samplers import ClipPlan
from tsp_core.video.proxy import write_proxy
from tsp_core.video.proxy_files import proxy_settings
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_frames, timeline_from_row
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
    raw = dataset.__getitems__([request(1, 0.0), request(1, 0.5), request(2, 1.0)])
    for clip, start in zip(raw.frames, (1.2, 1.2 + 0.5 * (1.3 - 8 / 15), 4 - 8 / 15), strict=True):
        first = int(start * 15 + 1e-6)
        assert read_numbers(clip.numpy(), CLIP) == list(range(first, first + 8))
    dataset.close()


def request(row: int, ratio: float, *, flip: bool = False) -> Request:
    """A clip, cropped at the centre."""
    return Request(row=row, ratio=ratio, top=2, left=4, flip=flip)


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
            clip = dataset[request(row, float(plan.ratios[position]))].frames
            top, left = position % 5, position % 9
            whole = whole_frames(index, row, float(plan.ratios[position]))
            window = whole[:, top : top + 16, left : left + 16]
            assert np.array_equal(clip[0], whole[:, 2:18, 4:20])
            expected = normalise_clips(
                torch.from_numpy(window[:, :, ::-1].copy() if position % 2 else window)[None]
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


def whole_frames(index: ClipIndex, row: int, ratio: float) -> np.ndarray:
    """A clip's frames before cropping."""
    video = index.video_row(int(index.video_indices[row]))
    timeline = timeline_from_row(video)
    with ClipReader(Path(video["uri"]), timeline, video["keyframes"], 0, CLIP) as reader:
        return reader.read(clip_frames(timeline, CLIP, index.start(row, ratio)))


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
    deadline = time.monotonic() + 120
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
    assert list(first.failed) == [1]
    assert "unreadable" in first.failed[1]
    assert "clip left out: video1 at 0.000 s" in caplog.text
    assert len(second) == 0
    assert list(second.failed) == [3, 4, 5]
    blank = second.or_blank()
    assert blank.clips.shape == (1, 3, 8, 16, 16)
    assert blank.action_labels.tolist() == blank.region_labels.tolist() == [-1]
    assert first.or_blank() is first


def test_few_videos_stay_open(index: ClipIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "OPEN_VIDEOS", 2)
    dataset = ClipDataset(index.folder, CLIP, None)
    for row in (0, 3, 6, 9, 0):
        dataset[request(row, 0.0)]
        assert len(dataset._open) <= 2
    dataset.close()
    assert not dataset._open


def test_more_proxies_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "OPEN_VIDEOS", 1)
    monkeypatch.setattr(data, "OPEN_PROXIES", 2)
    index = proxied_index(tmp_path, ["video0", "video1", "video2"])
    dataset = ClipDataset(index.folder, CLIP, None)
    for row in (0, 9, 3, 6):
        dataset[request(row, 0.0)]
    assert list(dataset._open) == [3]
    assert list(dataset._open_proxies) == [1, 2]
    dataset.close()
    assert not dataset._open_proxies


def test_a_video_with_a_proxy_is_read_from_it_and_others_from_themselves(tmp_path: Path) -> None:
    index = proxied_index(tmp_path, ["video1", "video2"])
    without = open_index(Path(make_job(tmp_path / "none").folder))
    for number in (1, 2):
        Path(index.video_row(number)["uri"]).unlink()
    plan = make_plan([1, 4, 0, 8, 7, 3], [0.0, 0.3, 0.9, 1.0, 0.5, 0.2])
    for one, other in zip(load(index, plan, 2), load(without, plan), strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert (one.clips - other.clips).abs().mean() < 0.1  # of some 4 in all
    proxies = [index.video_row(number)["proxy"] is not None for number in range(4)]
    assert proxies == [False, True, True, False]


def proxied_index(folder: Path, names: list[str]) -> ClipIndex:
    """The tiny training set, some of its videos with proxies."""
    make_job(folder)
    paths = sorted((folder / "videos").glob("*.mp4"))
    videos = videos_table(paths)
    uris = {}
    for row in videos.to_pylist():
        if row["video"] in names:
            uris[row["content_hash"]] = str(folder / f"{row['video']}.arrow")
            settings = proxy_settings(ProxyConfig(), CLIP)
            write_proxy(Path(row["uri"]), row, CLIP, settings, Path(uris[row["content_hash"]]))
    write_index(folder, videos=videos, clips=clips_table(paths), proxies=uris)
    return open_index(folder)


def test_a_damaged_proxy_costs_its_clips_alone(tmp_path: Path) -> None:
    index = proxied_index(tmp_path, ["video1"])
    Path(index.video_row(1)["proxy"]).write_bytes(b"not a proxy")
    (batch,) = load(index, make_plan([0, 3, 6]))
    assert batch.positions.tolist() == [0, 2]
    assert "damaged proxy" in batch.failed[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_clips_of_videos_that_are_left_out_are_not_tried(
    index: ClipIndex, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    Path(index.video_row(1)["uri"]).unlink()
    plan = make_plan([0, 3, 2, 4, 4, 5])
    with closing(make_loader(index, num_workers)) as loader, caplog.at_level(logging.WARNING):
        first, second = loader.batches(plan, chunks(plan), {1: "it hangs"})
    assert first.positions.tolist() == [0, 2]
    assert first.failed == {1: "it hangs"}
    assert len(second) == 0
    assert second.failed == dict.fromkeys((3, 4, 5), "it hangs")
    assert caplog.text == ""


@pytest.mark.slow
def test_a_loader_process_that_is_killed_is_told(index: ClipIndex) -> None:
    plan = make_plan([0, 3, 2])
    with closing(make_loader(index, num_workers=1)) as loader:
        assert len(list(loader.batches(plan, chunks(plan)))) == 1
        iterator: Any = loader._loader._iterator
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        with pytest.raises((WorkerLostError, RuntimeError), match="DataLoader worker"):
            list(loader.batches(plan, chunks(plan)))


@pytest.mark.slow
@pytest.mark.parametrize("error", [EOFError(), ConnectionRefusedError(111, "refused")])
def test_a_loader_process_that_dies_while_it_hands_over_is_told(
    index: ClipIndex, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    plan = make_plan([0, 3, 2])
    with closing(make_loader(index, num_workers=1)) as loader:
        monkeypatch.setattr(resource_sharer.DupFd, "detach", fail)
        with pytest.raises(WorkerLostError, match=f"training died: {type(error).__name__}"):
            list(loader.batches(plan, chunks(plan)))


@pytest.mark.slow
def test_loader_processes_that_are_ahead_end_without_an_abort(index: ClipIndex) -> None:
    """They are sending what nobody waits for any more."""
    plan = make_plan([0, 3, 2] * 200)
    statuses: list[int | None] = []
    for _ in range(3):
        with closing(make_loader(index, num_workers=2)) as loader:
            next(loader.batches(plan, chunks(plan)))
            iterator: Any = loader._loader._iterator
        statuses += [worker.exitcode for worker in iterator._workers]
    assert statuses == [0] * 6


@pytest.mark.parametrize("message", ["DataLoader worker (pid 7) is", "Pin memory thread exited un"])
def test_what_tells_of_a_lost_loader_process(message: str) -> None:
    assert _is_loss(RuntimeError(message))
    assert not _is_loss(RuntimeError("the clips are of no size"))


def test_what_reading_raises_in_this_process_is_no_lost_process(
    index: ClipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FileNotFoundError("index.arrow")

    plan = make_plan([0, 3, 2])
    monkeypatch.setattr(data, "open_index", fail)
    with (
        closing(make_loader(index, num_workers=0)) as loader,
        pytest.raises(FileNotFoundError, match=r"index\.arrow"),
    ):
        list(loader.batches(plan, chunks(plan)))

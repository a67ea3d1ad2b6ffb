"""A video that takes its reader with it is found, read apart, and costs its clips alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.training import failing_reads
from tests.training.tiny import CLIP, make_job, make_trainer
from tests.video.crashing import crash
from tsp_core import storage
from tsp_core.config import RuntimeConfig
from tsp_core.training.data import ClipDataset, Request
from tsp_core.training.index import open_index
from tsp_core.training.job import TrainingJob, TrainingUpdate
from tsp_core.training.launch import launch
from tsp_core.training.suspects import ReadingNote, collect_suspects, fetch_suspects, suspects
from tsp_core.video import apart as module
from tsp_core.video.sandbox import DecodingLimits

LIMITS = DecodingLimits.of(RuntimeConfig())
REQUESTS = [Request(row, 0.3, 1, 2, flip=bool(row % 2)) for row in (0, 3, 1, 4)]


def suspects_of(job: TrainingJob) -> frozenset[int]:
    fetch_suspects(job)
    return suspects(open_index(Path(job.folder)))


def test_notes_of_the_dead_become_suspects(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert suspects_of(job) == frozenset()
    note = ReadingNote(tmp_path, 60)
    with note.of(2):
        shutil.copy(tmp_path / f"reading-{os.getpid()}", tmp_path / "reading-1")  # it died here
    (tmp_path / "reading-2").touch()  # it died before its first note
    assert collect_suspects(job) == {"video2"}
    assert not list(tmp_path.glob("reading-*"))
    assert suspects_of(job) == {2}
    shutil.copy(os.devnull, tmp_path / "reading-3")
    assert collect_suspects(job) == frozenset()
    with ReadingNote(tmp_path, 60).of(1):
        assert collect_suspects(job) == {"video1"}
    assert suspects_of(job) == {1, 2}
    storage.delete(job.suspects_uri)
    assert suspects_of(job) == frozenset()


def test_suspects_are_read_alike_and_a_crash_costs_their_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(make_job(tmp_path).folder)
    plain = ClipDataset(folder, CLIP, None, LIMITS)
    expected = plain.__getitems__(REQUESTS)
    plain.close()
    apart = ClipDataset(folder, CLIP, None, LIMITS, frozenset({1}))  # rows 3 and 4
    assert torch.equal(apart.__getitems__(REQUESTS).frames, expected.frames)
    monkeypatch.setattr(module, "read_clip", crash)
    found = apart.__getitems__(REQUESTS)
    apart.close()
    assert found.places.tolist() == [0, 2]
    assert torch.equal(found.frames, expected.frames[[0, 2]])
    assert [clip.place for clip in found.failed] == [1, 3]
    assert all("crashed: 'video1.mp4'" in clip.reason for clip in found.failed)


READ = """
import sys
from pathlib import Path
from tests.training.test_suspects import REQUESTS, dataset
folder, *apart = sys.argv[1:]
dataset(folder, stall_seconds=60).__getitems__(REQUESTS[:1])  # all is imported and compiled now
print("reads", flush=True)
batch = dataset(folder, stall_seconds=2, apart=map(int, apart)).__getitems__(REQUESTS[1:2])
print(batch.places.tolist(), batch.failed)
"""


def dataset(folder: str, *, stall_seconds: float, apart: Iterable[int] = ()) -> ClipDataset:
    """A dataset that waits so long for a clip."""
    limits = dataclasses.replace(LIMITS, stall_seconds=stall_seconds)
    return ClipDataset(Path(folder), CLIP, None, limits, frozenset(apart))


@pytest.mark.slow
def test_a_clip_that_hangs_ends_its_process_and_apart_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    failing_reads.install(
        *(tmp_path / "hook", monkeypatch),
        **{"video": "video1.mp4", "how": "hang", "marker": tmp_path / "marker"},
    )

    def read(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", READ, job.folder, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    here = read()
    assert (here.returncode, here.stdout) == (1, "reads\n")
    assert "Timeout (0:00:02)!" in here.stderr  # and where it hung
    assert "failing_read" in here.stderr
    assert collect_suspects(job) == {"video1"}
    there = read("1")
    assert there.returncode == 0, there.stderr
    assert "[] (FailedClip(place=0" in there.stdout
    assert "limits: 'video1.mp4': decoding makes no progress for 2 s" in there.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("how", "workers"), [("crash once", 0), ("crash", 1)])
def test_training_goes_on_when_a_reader_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, workers: int
) -> None:
    """The same comes out as without the death, or as when the video cannot be read at all."""
    settings = {"batch_size": 2, "epochs": 2, "clips_per_segment": 1}
    whole = make_job(tmp_path / "whole", **settings)
    if how == "crash":
        (tmp_path / "whole" / "videos" / "video1.mp4").write_bytes(b"no video")
    expected = make_trainer(whole.model_copy(update={"max_bad_fraction": 0.3})).run()

    failing_reads.install(
        *(tmp_path / "hook", monkeypatch),
        **{"video": "video1.mp4", "how": how, "marker": tmp_path / "marker"},
    )
    job = make_job(tmp_path / "crashed", **settings)
    job = job.model_copy(update={"num_workers": workers, "max_bad_fraction": 0.3})

    def ignore(update: TrainingUpdate) -> None:
        pass

    result = launch(job, ignore)
    assert (tmp_path / "marker").exists()
    assert suspects_of(job) == {1}
    assert list(result.rows) == expected.rows
    bad = [(video.video, video.epoch) for video in result.quarantined]
    assert bad == [(name, 0) for name in expected.quarantine]
    assert bad == ([("video1", 0)] if how == "crash" else [])
    assert all("crashes on it, twice" in video.reason for video in result.quarantined)

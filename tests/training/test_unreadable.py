"""Videos that cannot be read for a while, as the data loader meets them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import CLIP, make_job
from tsp_core.storage import faults
from tsp_core.training.data import ClipDataset, Request
from tsp_core.training.index import ClipIndex, open_index
from tsp_core.video import trouble
from tsp_core.video.reader import ClipReader
from tsp_core.video.trouble import MachineTroubleError

REQUEST = Request(row=1, ratio=0.0, top=2, left=4, flip=False)


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    return open_index(Path(make_job(tmp_path).folder))


@pytest.fixture
def folder(index: ClipIndex) -> Path:
    """Where the video of the request is."""
    row = index.video_row(int(index.video_indices[REQUEST.row]))
    return Path(row["uri"]).parent


def hidden(folder: Path) -> Path:
    """Move a folder away, and not beside where it was: there would be a folder of videos still."""
    (folder.parent / "away").mkdir()
    return folder.rename(folder.parent / "away" / "videos")


def test_a_folder_that_is_away_for_a_moment_costs_no_clip(
    index: ClipIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = hidden(folder)
    pauses: list[float] = []

    def come_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            away.rename(folder)

    monkeypatch.setattr(trouble.time, "sleep", come_back)
    with closing(ClipDataset(index.folder, CLIP, None)) as dataset:
        assert dataset[REQUEST].failed == ()
    assert pauses == list(faults.RETRY_DELAYS_SECONDS[:2])


def test_a_folder_that_stays_away_stops_the_training_and_blames_no_video(
    index: ClipIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0,))
    hidden(folder)
    with (
        closing(ClipDataset(index.folder, CLIP, None)) as dataset,
        pytest.raises(MachineTroubleError, match="its folder is not there or empty"),
    ):
        dataset.__getitems__([REQUEST])


def test_a_video_that_is_open_is_opened_anew(
    index: ClipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handle may be stale for ever, where a file server was started again."""
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0,))
    stale: list[ClipReader] = []
    read = ClipReader.read

    def fail(self: ClipReader, *arguments: Any) -> Any:
        if self in stale:
            raise MachineTroubleError("Stale file handle")
        return read(self, *arguments)

    def remember(self: ClipReader, *arguments: Any) -> Any:
        stale.append(self)
        return read(self, *arguments)

    with closing(ClipDataset(index.folder, CLIP, None)) as dataset:
        monkeypatch.setattr(ClipReader, "read", remember)
        before = dataset[REQUEST].frames
        monkeypatch.setattr(ClipReader, "read", fail)
        assert torch.equal(dataset[REQUEST].frames, before)
        assert len(dataset._open) == 1


def test_one_file_that_is_gone_is_left_out(index: ClipIndex, folder: Path) -> None:
    row = index.video_row(int(index.video_indices[REQUEST.row]))
    Path(row["uri"]).unlink()
    with closing(ClipDataset(index.folder, CLIP, None)) as dataset:
        (failed,) = dataset[REQUEST].failed
    assert "does not exist" in failed.reason

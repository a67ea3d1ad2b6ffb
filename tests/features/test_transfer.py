"""Clips on their way to the device: what overlaps is copied once, and stays what it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.features.clips import CLIP, extractor, row, video
from tsp_core.features import transfer
from tsp_core.features.transfer import copied_once, sent_to_device, sent_to_host
from tsp_core.video.clips import ClipBatch, iter_clip_batches
from tsp_core.video.sampling import clip_grid, timeline_from_row

LENGTH, SIDE = 8, 6


def overlapping(batch: int, stride: int, *, first_frame: int = 2) -> torch.Tensor:
    """Clips [B, 3, L, S, S] that are views of the frames they share."""
    frames = torch.arange(40 * SIDE * SIDE * 3, dtype=torch.float32).view(40, SIDE, SIDE, 3)
    step = frames.stride(0)
    clips = frames.as_strided(
        (batch, LENGTH, SIDE, SIDE, 3), (stride * step, *frames.stride()), first_frame * step
    )
    return clips.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(("batch", "stride"), [(5, 1), (5, 4), (3, 8), (3, 10), (1, 1)])
def test_each_frame_is_copied_once(batch: int, stride: int) -> None:
    clips = overlapping(batch, stride)
    assert torch.equal(copied_once(clips, torch.device("cpu"), pinned=False), clips)
    there = copied_once(clips, torch.device("meta"), pinned=False)
    num_frames = (batch - 1) * stride + LENGTH
    assert there.untyped_storage().nbytes() == num_frames * SIDE * SIDE * 3 * 4
    assert there.shape == clips.shape
    assert there.stride() == clips.stride()


def test_on_the_cpu_nothing_is_copied() -> None:
    batches = [ClipBatch(clips=overlapping(2, 4), first_index=index) for index in (0, 2)]
    sent = list(sent_to_device(iter(batches), torch.device("cpu")))
    assert [batch.first_index for batch in sent] == [0, 2]
    assert all(there.clips() is here.clips for there, here in zip(sent, batches, strict=True))
    features = torch.randn(2, 5)
    assert sent_to_host(features).wait().ctypes.data == features.data_ptr()


def test_all_videos_share_one_stream_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator keeps memory for each stream, and gives it to no other."""
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or device)
    transfer._copy_stream.cache_clear()
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    for device in (first, first, second, first):
        assert transfer._copy_stream(device) == device
    transfer._copy_stream.cache_clear()
    assert made == [first, second]


def test_the_batches_before_an_error_are_sent() -> None:
    def failing() -> Iterator[ClipBatch]:
        yield ClipBatch(clips=overlapping(2, 4), first_index=0)
        raise ValueError("broken")

    sent = sent_to_device(failing(), torch.device("cpu"))
    assert next(sent).first_index == 0
    with pytest.raises(ValueError, match="broken"):
        next(sent)


def test_dense_clips_of_a_video_come_as_views(tmp_path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    timeline = timeline_from_row(facts)
    grid = clip_grid(timeline, CLIP, 1)
    for batch in iter_clip_batches(tmp_path / "a.mp4", timeline, 0, CLIP, grid, 4):
        there = copied_once(batch.clips, torch.device("meta"), pinned=False)
        frame_bytes = CLIP.crop_size**2 * 3 * 4
        count = len(batch.clips)
        assert there.untyped_storage().nbytes() == (count - 1 + CLIP.length) * frame_bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("stride", [1, 8])
def test_a_gpu_gives_the_features_of_the_cpu(tmp_path, stride: int) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    here, there = (
        extractor(device=device).extract_row(facts, CLIP, stride) for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(
        torch.from_numpy(there.features), torch.from_numpy(here.features), rtol=1e-4, atol=1e-5
    )

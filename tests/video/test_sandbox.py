"""Decoding in workers gives what decoding here gives, and a bad file costs itself."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from tests.synthetic import VideoSpec, write_video
from tests.video.crashing import crash, crashing, fill_memory, process_id, torch_is_there
from tsp_core.config import ClipConfig, RuntimeConfig
from tsp_core.errors import VideoError, WorkerLostError
from tsp_core.isolation import Limits, WorkerPool
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.sampling import clip_grid
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

LIMITS = DecodingLimits.of(RuntimeConfig())
CLIP = ClipConfig(length=4)
FILES = {
    "b_frames.mp4": VideoSpec(num_frames=61, b_frames=3, gop=600),
    "unordered.avi": VideoSpec(num_frames=40, b_frames=3),
    "uneven.mkv": VideoSpec(
        num_frames=40, pts=[33 * i + 70 * (i // 7) for i in range(40)], time_base=Fraction(1, 1000)
    ),
    "rotated.mov": VideoSpec(num_frames=24, width=96, height=64, rotation=90),
    "short.mp4": VideoSpec(num_frames=3),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, VideoProbe]]:
    folder = tmp_path_factory.mktemp("videos")
    paths = {name: write_video(folder / name, spec) for name, spec in FILES.items()}
    return {name: (path, probe(path)) for name, path in paths.items()}


def batches_of(
    path: Path, found: VideoProbe, stride: int, limits: DecodingLimits | None
) -> list[torch.Tensor]:
    grid = clip_grid(found.timeline, CLIP, stride)
    rotation = found.row["rotation_degrees"]
    batches = iter_clip_batches(path, found.timeline, rotation, CLIP, grid, 5, limits=limits)
    return [batch.clips for batch in batches]


@pytest.mark.parametrize("name", FILES)
def test_a_worker_measures_what_this_process_measures(videos, name: str) -> None:
    path, found = videos[name]
    assert run_sandboxed(probe, path, LIMITS).as_row() == found.as_row()


@pytest.mark.parametrize(("name", "stride"), [*itertools.product(FILES, [2]), ("b_frames.mp4", 1)])
def test_a_worker_gives_the_clips_that_this_process_gives(videos, name: str, stride: int) -> None:
    path, found = videos[name]
    here = batches_of(path, found, stride, None)
    there = batches_of(path, found, stride, LIMITS)
    assert len(here) == len(there) > 0
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_errors_of_the_decoder_come_back_with_their_code(tmp_path: Path, videos) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"'text\.mp4' is no video file") as caught:
        run_sandboxed(probe, tmp_path / "text.mp4", LIMITS)
    assert caught.value.code == "unreadable"

    path, found = videos["b_frames.mp4"]
    cut = tmp_path / "cut.mp4"
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (data.index(b"moov") - start) // 2
    data[middle : middle + 100] = bytes(100)
    cut.write_bytes(data)
    with pytest.raises(VideoError) as caught:
        batches_of(cut, found, 1, LIMITS)
    assert caught.value.code == "corrupted"


def test_a_file_that_crashes_the_decoder_is_told(videos) -> None:
    path, found = videos["b_frames.mp4"]
    with pytest.raises(VideoError, match=r"'b_frames.mp4': .* twice: .*SIGSEGV") as caught:
        run_sandboxed(crash, path, LIMITS)
    assert caught.value.code == "crashed"
    grid = clip_grid(found.timeline, CLIP, 1)
    bad = crashing(found.timeline)
    with pytest.raises(VideoError, match=r"'b_frames.mp4': .* twice: .*SIGSEGV") as caught:
        list(iter_clip_batches(path, bad, 0, CLIP, grid, 5, limits=LIMITS))
    assert caught.value.code == "crashed"
    assert len(batches_of(path, found, 1, LIMITS)) > 1  # the next file is none the worse


def test_a_worker_that_cannot_start_says_nothing_about_the_file(
    videos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, found = videos["b_frames.mp4"]
    monkeypatch.setattr("tsp_core.isolation.pool._pool", WorkerPool())
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerLostError, match="lost before it began"):
        run_sandboxed(probe, path, LIMITS)
    grid = clip_grid(found.timeline, CLIP, 1)
    with pytest.raises(WorkerLostError, match="lost before it began"):
        list(iter_clip_batches(path, found.timeline, 0, CLIP, grid, 5, limits=LIMITS))


def test_a_worker_that_was_killed_is_replaced_and_nothing_is_missing(
    videos, tmp_path: Path
) -> None:
    path, found = videos["b_frames.mp4"]
    once = crashing(found.timeline, marker=tmp_path / "killed")
    grid = clip_grid(found.timeline, CLIP, 2)
    there = [b.clips for b in iter_clip_batches(path, once, 0, CLIP, grid, 5, limits=LIMITS)]
    here = batches_of(path, found, 2, None)
    assert (tmp_path / "killed").exists()
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_a_file_that_hangs_the_decoder_is_told(videos) -> None:
    path, found = videos["b_frames.mp4"]
    grid = clip_grid(found.timeline, CLIP, 1)
    short = dataclasses.replace(LIMITS, stall_seconds=0.3)
    with pytest.raises(
        VideoError, match=r"makes no progress for 0\.3 s; raise runtime\.decoder_stall_seconds"
    ) as caught:
        list(
            iter_clip_batches(path, crashing(found.timeline, how=0), 0, CLIP, grid, 5, limits=short)
        )
    assert caught.value.code == "limits"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
def test_a_file_that_needs_too_much_memory_is_told(videos) -> None:
    path, _ = videos["b_frames.mp4"]
    little = dataclasses.replace(LIMITS, memory_mb=20)
    message = (
        r"'b_frames.mp4': decoding needs more than 20 MB of memory; raise runtime\.decoder_mem"
    )
    with pytest.raises(VideoError, match=message) as caught:
        run_sandboxed(fill_memory, path, little, 50_000_000)
    assert caught.value.code == "limits"


def test_lack_of_memory_is_no_damage(videos, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = videos["b_frames.mp4"]

    def no_memory(*_: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr("tsp_core.video.probe.frame_pts", no_memory)
    monkeypatch.setattr("tsp_core.video.frames.frame_pts", no_memory)
    with pytest.raises(MemoryError):
        probe(path, keep_truncated=True)
    with pytest.raises(MemoryError):
        batches_of(path, found, 1, None)


def test_a_file_that_decodes_to_far_too_much_is_told(videos) -> None:
    path, _ = videos["b_frames.mp4"]
    small = dataclasses.replace(LIMITS, gigapixels=1e-5, pixels_per_byte=1)
    allowed = small.max_pixels(path)
    assert allowed == 10_000 + path.stat().st_size
    frames = allowed // (64 * 48) + 1
    with pytest.raises(VideoError, match=rf"gigapixels \(after {frames} frames\)") as caught:
        run_sandboxed(probe, path, small, max_pixels=allowed)
    assert caught.value.code == "limits"
    assert probe(path, max_pixels=61 * 64 * 48).timeline.num_frames == 61


def test_limits_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(2_000_000))
    assert LIMITS.for_file(path) == Limits(
        stall_seconds=120, total_seconds=3660, memory_bytes=4_096_000_000
    )
    assert LIMITS.max_pixels(path) == 200e9 + 2e6 * 1e5


def test_workers_that_decode_do_without_torch(tmp_path: Path) -> None:
    assert not run_sandboxed(torch_is_there, tmp_path, LIMITS)


def test_without_isolation_everything_is_done_here(tmp_path: Path) -> None:
    here = dataclasses.replace(LIMITS, isolate=False)
    assert run_sandboxed(process_id, tmp_path, here) == os.getpid()
    assert run_sandboxed(process_id, tmp_path, LIMITS) != os.getpid()

"""Clips per second of the export's data path against the per-clip method.

Decoding to normalised clips, without a model: all clips of a video in one pass, exact pixels, one
decoding thread; in this process, and in a worker process, as the stages decode by default.
`python -m benchmarks.export_data [--quick] [--videos FILE...]`
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import baseline, measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig, RuntimeConfig
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.decode import opened_video
from tsp_core.video.frames import FrameResizer
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.sampling import clip_grid
from tsp_core.video.sandbox import DecodingLimits

TARGETS = {16: 10, 4: 40, 1: 100}
"""Times the baseline's rate, by stride."""

_CLIP = ClipConfig()
_LIMITS = DecodingLimits.of(RuntimeConfig())
_BATCH_SIZE = 16


def run(quick: bool, videos: Sequence[Path] = ()) -> list[Row]:
    """Measure on the generated video of 120 seconds, or on the given files."""
    torch.set_num_threads(1)
    paths = list(videos) or [h264_video(120)]
    return [row for path in paths for row in _measured(path, quick)]


def _measured(path: Path, quick: bool) -> list[Row]:
    found = probe(path)
    fps = float(found.timeline.frame_rate)
    what = f"{found.row['width']}x{found.row['height']}, {fps:.4g} fps, {found.row['codec']}"
    rows = []
    for stride, target in TARGETS.items():
        works = {
            "baseline": _baseline(path, found, stride, num_clips=12 if quick else 30),
            "ours": _ours(path, found, stride, limits=None),
            "in a worker": _ours(path, found, stride, limits=_LIMITS),
        }
        works["in a worker"]()  # which starts it
        rates = measure.side_by_side(
            works, rounds=3 if quick else 5, cpu_seconds=measure.cpu_seconds
        )
        name = f"export data, stride {stride} ({path.name}: {what})"
        target_text = f">= {target}x"
        rows.append(measure.rate_row(name, rates["ours"], rates["baseline"], target=target_text))
        name = f"export data in a worker process, stride {stride}"
        rows.append(measure.rate_row(name, rates["in a worker"], rates["baseline"]))
    return rows + _breakdown(path, found)


def _baseline(path: Path, found: VideoProbe, stride: int, *, num_clips: int) -> Callable[[], int]:
    """Evenly spaced clips of the grid; the cost of one does not depend on the stride."""
    fps = float(found.timeline.frame_rate)
    starts = baseline.clip_starts(found.timeline.num_frames, fps, stride)
    chosen = np.linspace(0, len(starts) - 1, min(num_clips, len(starts))).astype(int)

    def work() -> int:
        for first in range(0, len(chosen), _BATCH_SIZE):
            batch = chosen[first : first + _BATCH_SIZE]
            torch.stack([baseline.read_clip(path, starts[index], fps) for index in batch])
        return len(chosen)

    return work


def _ours(
    path: Path, found: VideoProbe, stride: int, *, limits: DecodingLimits | None
) -> Callable[[], int]:
    grid = clip_grid(found.timeline, _CLIP, stride)
    rotation = found.row["rotation_degrees"]

    def work() -> int:
        batches = iter_clip_batches(
            path, found.timeline, rotation, _CLIP, grid, _BATCH_SIZE, limits=limits
        )
        return sum(len(batch.clips) for batch in batches)

    return work


def _breakdown(path: Path, found: VideoProbe) -> list[Row]:
    """Microseconds of CPU time per frame of what every method has to do, and of a collection."""
    with opened_video(path) as (container, stream):
        start = time.process_time()
        frames = []
        num_decoded = 0
        for frame in container.decode(stream):
            num_decoded += 1
            if len(frames) < 100:
                frames.append(frame)
        decode = (time.process_time() - start) / num_decoded
    window, picture = (8, 30, 112, 112), np.empty((112, 112, 3), dtype=np.float32)
    resizer = FrameResizer(_CLIP, found.row["rotation_degrees"], window, normalise=True)
    start = time.process_time()
    for frame in frames:
        resizer(frame, out=picture)
    resize = (time.process_time() - start) / len(frames)
    start = time.process_time()
    gc.collect()
    collection = (time.process_time() - start) / 10
    return [
        measure.row(f"decode one frame ({path.name})", decode * 1e6, unit="us"),
        measure.row(f"convert and resize one frame ({path.name})", resize * 1e6, unit="us"),
        measure.row(
            "garbage collection per clip of the baseline",
            collection * 1e3,
            unit="ms",
            notes="part of the baseline, as torchvision reads",
        ),
    ]


if __name__ == "__main__":
    _options = measure.arguments(__doc__, videos={"nargs": "+", "type": Path, "default": []})
    measure.report(run(_options.quick, _options.videos), _options.json)

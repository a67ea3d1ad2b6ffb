"""What it costs to decode in worker processes, against the same in the process itself.

CPU time is that of this process and its workers together. `python -m benchmarks.sandbox [--quick]`
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.measure import Rates, Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig, RuntimeConfig
from tsp_core.isolation import WorkerPool
from tsp_core.video.apart import ApartReader
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_frames, clip_grid
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

_CLIP = ClipConfig()
_BATCH_SIZE = 16
_LIMITS = DecodingLimits.of(RuntimeConfig())
Work = Callable[[], int]


def run(quick: bool) -> list[Row]:
    """Measure on generated videos of 120 and of 2 seconds."""
    torch.set_num_threads(1)
    path, short = h264_video(120), h264_video(2)
    found = probe(path)
    compared = {
        "measure a video of 120 s at ingest": _probes(path, 1 if quick else 2),
        "measure a video of 2 s at ingest": _probes(short, 20),
        "clips of 120 s at stride 16": _clips(path, found, 16),
        "clips of 120 s at stride 1": _clips(path, found, 1),
        "single clips at random starts": _single_clips(path, found, 20 if quick else 60),
    }
    rows = [_compared(name, *works, rounds=5 if quick else 11) for name, works in compared.items()]
    return [*rows, _start(3 if quick else 7)]


def _compared(name: str, here: Work, apart: Work, *, rounds: int) -> Row:
    """CPU time per item in a worker, against that in this process."""
    works = {"here": here, "apart": apart}
    for work in works.values():
        work()  # workers start, files come into the cache
    rates = measure.side_by_side(works, rounds=rounds, cpu_seconds=measure.cpu_seconds)
    cpu, wall = (_overhead(rates["apart"], rates["here"], kind) for kind in ("cpu", "wall"))
    return measure.row(
        name,
        1e3 / rates["apart"].per_core,
        unit="CPU ms",
        baseline=1e3 / rates["here"].per_core,
        ratio=cpu,
        notes=f"CPU time x {cpu:.3f}, wall time x {wall:.3f}",
    )


def _overhead(apart: Rates, here: Rates, kind: str) -> float:
    """How many times as long it takes, median of the rounds."""
    pairs = zip(getattr(apart, kind), getattr(here, kind), strict=True)
    return statistics.median(there / rate for rate, there in pairs)


def _probes(path: Path, count: int) -> tuple[Work, Work]:
    def here() -> int:
        for _ in range(count):
            probe(path)
        return count

    def apart() -> int:
        for _ in range(count):
            run_sandboxed(probe, path, _LIMITS)
        return count

    return here, apart


def _clips(path: Path, found: VideoProbe, stride: int) -> tuple[Work, Work]:
    grid = clip_grid(found.timeline, _CLIP, stride)

    def decoded(limits: DecodingLimits | None) -> int:
        batches = iter_clip_batches(
            path, found.timeline, 0, _CLIP, grid, _BATCH_SIZE, limits=limits
        )
        return sum(len(batch.clips) for batch in batches)

    return (lambda: decoded(None)), (lambda: decoded(_LIMITS))


def _single_clips(path: Path, found: VideoProbe, count: int) -> tuple[Work, Work]:
    row: dict[str, Any] = found.as_row() | {"content_hash": "the same"}
    rotation = row["rotation_degrees"]
    reader = ClipReader(path, found.timeline, row["keyframes"], rotation, _CLIP)
    apart = ApartReader(path, row, _CLIP, _LIMITS)
    starts = np.random.default_rng(0).uniform(0, 118, count)
    frames = [clip_frames(found.timeline, _CLIP, float(start)) for start in starts]

    def read(reader: ClipReader | ApartReader) -> int:
        for indices in frames:
            reader.read(indices, (8, 30, 112, 112))
        return count

    return (lambda: read(reader)), (lambda: read(apart))


def _start(rounds: int) -> Row:
    """A worker is started once for each task at a time, and again after a hundred files."""
    seconds = []
    path = h264_video(2)
    for _ in range(rounds):
        pool, start = WorkerPool(), measure.cpu_seconds()
        pool.call(probe, _LIMITS.for_file(path), path)
        pool.close()
        seconds.append(measure.cpu_seconds() - start)
    return measure.row("start a worker, first file", 1e3 * min(seconds), unit="CPU ms")


if __name__ == "__main__":
    _options = measure.arguments(__doc__)
    measure.report(run(_options.quick), _options.json)

"""Where the time of an export goes: CPU milliseconds per clip of each step, on one core.

`python -m benchmarks.breakdown [--quick]`
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig, Precision
from tsp_core.features.rows import FeatureRows, table_from_features
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.model.weights import open_encoder
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.decode import opened_video
from tsp_core.video.frames import FrameFinder, decode_needed
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.sampling import ClipGrid, clip_grid

_CLIP = ClipConfig()
_BATCH_SIZE = 16
_STRIDES = (16, 1)


def run(quick: bool) -> list[Row]:
    """Measure on the generated video of 120 seconds."""
    torch.set_num_threads(1)
    path = h264_video(120)
    found = probe(path)
    rows = [row for stride in _STRIDES for row in _data_rows(path, found, stride)]
    batch = 4 if quick else 8
    return [*rows, _model_row("fp32", batch), _model_row("bf16", batch), _write_row()]


def _data_rows(path: Path, found: VideoProbe, stride: int) -> list[Row]:
    grid = clip_grid(found.timeline, _CLIP, stride)
    is_needed = np.zeros(found.timeline.num_frames, dtype=np.bool_)
    is_needed[grid.frame_indices] = True
    demux = _cpu_seconds(lambda: _demux(path))
    decode = _cpu_seconds(lambda: _decode(path, found, is_needed))
    whole = _cpu_seconds(lambda: one_pass(path, found, grid))
    steps = {
        "demux": demux,
        "decode": decode - demux,
        "colour, scale, normalise, copy": whole - decode,
    }
    return [
        measure.row(
            f"export, stride {stride}: {step}", 1e3 * seconds / len(grid), unit="CPU ms/clip"
        )
        for step, seconds in steps.items()
    ]


def _cpu_seconds(work: Callable[[], object], *, rounds: int = 3) -> float:
    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return float(np.median([once() for _ in range(rounds)]))


def _demux(path: Path) -> int:
    with opened_video(path) as (container, stream):
        return sum(1 for _ in container.demux(stream))


def _decode(path: Path, found: VideoProbe, is_needed: np.ndarray) -> int:
    finder = FrameFinder(found.timeline, path)
    with opened_video(path) as (container, stream):
        return sum(1 for _ in decode_needed(container, stream, finder, is_needed.item))


def _model_row(precision: Precision, batch: int) -> Row:
    encoder = open_encoder("random:0", name="r2plus1d_18").encoder
    prepared = prepare_for_inference(encoder, device="cpu", precision=precision)
    clips = torch.randn(batch, 3, 16, 112, 112)
    forward_features(prepared, clips)
    seconds = _cpu_seconds(lambda: forward_features(prepared, clips))
    return measure.row(
        f"export: R(2+1)D-18, {precision}", 1e3 * seconds / batch, unit="CPU ms/clip"
    )


def _write_row() -> Row:
    """A video's features as a row group of a shard."""
    num_clips = 112
    starts = np.arange(num_clips) * 16 / 15
    rows = FeatureRows(
        video="a",
        content_hash="b" * 64,
        features=np.random.default_rng(0).standard_normal((num_clips, 512), dtype=np.float32),
        starts_seconds=starts,
        ends_seconds=starts + 16 / 15,
        is_padded=np.zeros(num_clips, dtype=np.bool_),
    )

    def work() -> None:
        pq.write_table(table_from_features(rows), io.BytesIO(), compression="zstd")

    return measure.row("export: write", 1e3 * _cpu_seconds(work) / num_clips, unit="CPU ms/clip")


def one_pass(path: Path, found: VideoProbe, grid: ClipGrid) -> int:
    """Decode all clips of a video; the number of clips."""
    batches = iter_clip_batches(
        path, found.timeline, found.row["rotation_degrees"], _CLIP, grid, _BATCH_SIZE
    )
    return sum(len(batch.clips) for batch in batches)


if __name__ == "__main__":
    _options = measure.arguments(__doc__)
    measure.report(run(_options.quick), _options.json)

"""Where the time of an export goes: CPU milliseconds per clip of each step, on one core.

`python -m benchmarks.breakdown [--quick]`
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from av.video.frame import VideoFrame

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig, Precision
from tsp_core.features.rows import FeatureRows, table_from_features
from tsp_core.model.inference import (
    forward_features,
    has_bf16_instructions,
    prepare_for_inference,
)
from tsp_core.model.weights import open_encoder
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.decode import PictureConverter, opened_video
from tsp_core.video.frames import FrameResizer
from tsp_core.video.passes import needed_frames
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.sampling import ClipGrid, clip_grid
from tsp_core.video.transforms import centre_crop_offsets

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
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if has_bf16_instructions() else ("fp32",)
    return [*rows, *(_model_row(precision, batch) for precision in precisions), _write_row()]


def _data_rows(path: Path, found: VideoProbe, stride: int) -> list[Row]:
    """Each step is what a pass with it takes beyond a pass without it."""
    grid = clip_grid(found.timeline, _CLIP, stride)
    is_needed = np.zeros(found.timeline.num_frames, dtype=np.bool_)
    is_needed[grid.frame_indices] = True
    picture = np.empty((_CLIP.crop_size, _CLIP.crop_size, 3), dtype=np.float32)
    top, left = centre_crop_offsets(_CLIP.resize_height, _CLIP.resize_width, _CLIP.crop_size)
    window = (top, left, _CLIP.crop_size, _CLIP.crop_size)
    convert = PictureConverter(color=_CLIP.color, rotation_degrees=0)
    resize = FrameResizer(_CLIP, 0, window, normalise=True)
    passes: dict[str, Callable[[], object]] = {
        "demux": lambda: _demux(path),
        "decode": lambda: _decode(path, found, is_needed, lambda _: None),
        "colour": lambda: _decode(path, found, is_needed, convert),
        "scale and normalise": lambda: _decode(
            path, found, is_needed, lambda frame: resize(frame, out=picture)
        ),
        "copy": lambda: one_pass(path, found, grid),
    }
    seconds = _cpu_seconds(passes)
    before = 0.0
    rows = []
    for step, whole in seconds.items():
        name = f"export, stride {stride}: {step}"
        rows.append(measure.row(name, 1e3 * (whole - before) / len(grid), unit="CPU ms/clip"))
        before = whole
    return rows


def _cpu_seconds(works: Mapping[str, Callable[[], object]], *, rounds: int = 3) -> dict[str, float]:
    """Least CPU time of each work; they take turns."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    return least


def _demux(path: Path) -> int:
    with opened_video(path) as (container, stream):
        return sum(1 for _ in container.demux(stream))


def _decode(
    path: Path,
    found: VideoProbe,
    is_needed: np.ndarray,
    handle: Callable[[VideoFrame], object],
) -> None:
    for frame in needed_frames(path, found.timeline, np.flatnonzero(is_needed), threads=1):
        handle(frame)


def _model_row(precision: Precision, batch: int) -> Row:
    encoder = open_encoder("random:0", name="r2plus1d_18").encoder
    prepared = prepare_for_inference(encoder, device="cpu", precision=precision)
    clips = torch.randn(batch, 3, 16, 112, 112)
    forward_features(prepared, clips)
    seconds = _cpu_seconds({"": lambda: forward_features(prepared, clips)})[""]
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

    seconds = _cpu_seconds({"": work})[""]
    return measure.row("export: write", 1e3 * seconds / num_clips, unit="CPU ms/clip")


def one_pass(path: Path, found: VideoProbe, grid: ClipGrid) -> int:
    """Decode all clips of a video; the number of clips."""
    batches = iter_clip_batches(
        path, found.timeline, found.row["rotation_degrees"], _CLIP, grid, _BATCH_SIZE
    )
    return sum(len(batch.clips) for batch in batches)


if __name__ == "__main__":
    _options = measure.arguments(__doc__)
    measure.report(run(_options.quick), _options.json)

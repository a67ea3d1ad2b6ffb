"""Export on a GPU: clips per second, how busy the GPU is, and how long it waits for data.

Several threads decode a video each and share one encoder, as the tasks of a run do. Needs CUDA;
`--device cpu` runs the same code without it, which shows that it works and nothing else.
`python -m benchmarks.gpu [--quick] [--workers N] [--compiled]`
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig
from tsp_core.features.extraction import Extractor
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.video.probe import VideoProbe, probe

_BATCH_SIZE = 32
_STRIDES = (16, 1)
_SAMPLE_SECONDS = 0.2


def run(
    quick: bool, device: str = "cuda", workers: int | None = None, compiled: bool = False
) -> list[Row]:
    """Measure the model alone, then whole videos; nothing where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: skipped, torch finds no CUDA device here")
        return []
    workers = workers or len(os.sched_getaffinity(0))
    network = torchvision.models.video.r2plus1d_18(weights=None).eval()
    network.fc = nn.Identity()
    rate, rows = _model_rows(network, torch.device(device), quick, compiled)
    extractor = Extractor(
        network, 512, device=device, precision="bf16", batch_size=_BATCH_SIZE, compiled=compiled
    )
    for stride in _STRIDES if device == "cuda" else _STRIDES[:1]:
        rows += _video_rows(extractor, stride, workers, rate, quick)
    return rows


def _model_rows(
    network: nn.Module, device: torch.device, quick: bool, compiled: bool
) -> tuple[float, list[Row]]:
    """Clips per second of the model alone, and what that is of a matrix product's rate."""
    count = 2 if quick else 20
    prepared = prepare_for_inference(network, device=device, precision="bf16", compiled=compiled)
    clips = torch.randn(_BATCH_SIZE, 3, 16, 112, 112, device=device)
    seconds = _seconds_each(lambda: forward_features(prepared, clips), device, count)
    size = 2048 if quick else 8192
    a, b = (torch.randn(size, size, device=device, dtype=prepared.dtype) for _ in range(2))
    ceiling = 2 * size**3 / _seconds_each(lambda: torch.mm(a, b), device, count)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 16, 112, 112))
    clips_per_second = _BATCH_SIZE / seconds
    reached = clips_per_second * counter.get_total_flops()
    name = f"R(2+1)D-18, bf16{', compiled' if compiled else ''}, {device.type}"
    return clips_per_second, [
        measure.row(name, clips_per_second, unit="clips/s", notes=f"batches of {_BATCH_SIZE}"),
        measure.row(
            f"{name}: share of a matrix product's rate",
            reached / ceiling,
            unit="",
            target=">= 0.7",
            notes=f"{reached / 1e12:.3g} of {ceiling / 1e12:.3g} TFLOP/s",
        ),
    ]


def _seconds_each(work: Callable[[], object], device: torch.device, count: int) -> float:
    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    finish()
    start = time.perf_counter()
    for _ in range(count):
        work()
    finish()
    return (time.perf_counter() - start) / count


def _video_rows(
    extractor: Extractor, stride: int, workers: int, model_rate: float, quick: bool
) -> list[Row]:
    path = h264_video(20 if quick else 120)
    found = probe(path)

    def one(_: int) -> int:
        return len(_features(extractor, path, found, stride))

    one(0)  # what is done once: compilation, memory
    num_videos = workers if quick else 8 * workers
    start = time.perf_counter()
    with _watched() as utilisation, ThreadPoolExecutor(workers) as pool:
        num_clips = sum(pool.map(one, range(num_videos)))
    seconds = time.perf_counter() - start
    name = f"export, stride {stride}, {workers} decoding threads"
    rows = [
        measure.row(name, num_clips / seconds, unit="clips/s"),
        measure.row(
            f"{name}: time the GPU waits for data",
            max(0.0, 1 - num_clips / model_rate / seconds),
            unit="of the time",
            notes="1 - clips x the model's seconds per clip / seconds",
        ),
    ]
    if utilisation:
        busy = statistics.mean(utilisation) / 100
        rows.append(measure.row(f"{name}: GPU utilisation", busy, unit="of the time"))
    return rows


def _features(extractor: Extractor, path: Path, found: VideoProbe, stride: int) -> np.ndarray:
    rotation = found.row["rotation_degrees"]
    return extractor.extract(path, found.timeline, rotation, ClipConfig(), stride).features


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Collect the GPU's utilisation in percent, as nvidia-smi gives it, while the body runs."""
    samples: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not stop.wait(_SAMPLE_SECONDS):
            try:
                found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError):
                return
            samples.append(float(found.splitlines()[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    _options = measure.arguments(
        __doc__,
        device={"choices": ["cuda", "cpu"], "default": "cuda"},
        workers={"type": int, "default": None},
        compiled={"action": "store_true"},
    )
    measure.report(
        run(_options.quick, _options.device, _options.workers, _options.compiled), _options.json
    )

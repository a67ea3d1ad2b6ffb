"""What training from proxies costs in quality.

The cosine of features of clips read from real videos and of the same clips read from their proxies:
with the same frames (the loss of coding alone) and at random starts (where a clip may also begin up
to one sample earlier), for random weights and, where they are, real ones. For scale, the cosine of
a clip's features with those of the clip one sample later. With --training also the validation
accuracies on the demo data set after training from the videos and from proxies.
`python -m benchmarks.proxy_quality [--quick] [--training] [--codec mjpeg|h264] [--quality N]`
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.measure import Row
from tsp_core import pipeline
from tsp_core.config import ClipConfig, Config, EncoderConfig, ProxyConfig
from tsp_core.config.io import load_config
from tsp_core.demo import make_demo
from tsp_core.model.inference import PreparedEncoder, forward_features, prepare_for_inference
from tsp_core.model.weights import load_encoder
from tsp_core.schemas import read_table
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.proxy import write_proxy
from tsp_core.video.proxy_files import proxy_settings
from tsp_core.video.proxy_reader import ProxyReader
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_frames, sampled_frames
from tsp_core.video.transforms import centre_crop_offsets, normalise_clips

VIDEOS = (
    "v_ZNVhz7ctTq0.mp4",
    "v_GGSY1Qvo990.mp4",
    "women_long_jump.mp4",
    "abseiling_k400.mp4",
    "v_SoccerJuggling_g23_c01.avi",
    "flipping_a_pancake.mkv",
    "WUzgd7C1pWA.mp4",
    "R6llTwEh07w.mp4",
)
_WEIGHTS = "mc3_18_kinetics400_finetuned_fight.pth"
_CLIP = ClipConfig()
_TOP, _LEFT = centre_crop_offsets(_CLIP.resize_height, _CLIP.resize_width, _CLIP.crop_size)
_WINDOW = (_TOP, _LEFT, _CLIP.crop_size, _CLIP.crop_size)


@dataclass(frozen=True, kw_only=True)
class _Cosines:
    """Cosines by clip between the features read from a video and, in turn, ..."""

    coded: list[float] = field(default_factory=list)  # from its proxy, the same frames
    trained: list[float] = field(default_factory=list)  # from its proxy at the same time
    later: list[float] = field(default_factory=list)  # from the video, one sample later


def run(quick: bool, proxy: ProxyConfig, *, training: bool = False) -> list[Row]:
    """Measure on the reference data's videos; without them only the training is compared."""
    paths = measure.real_videos(*VIDEOS[: 3 if quick else None])
    rows = _features(paths, proxy, clips_per_video=1 if quick else 4) if paths else []
    if training:
        rows += _accuracies(quick, proxy)
    return rows


def _features(paths: Sequence[Path], proxy: ProxyConfig, *, clips_per_video: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        opened = [_opened(path, proxy, Path(name)) for path in paths]
        for what, encoder in _encoders(paths[0].parent.parent.parent / "weights"):
            cosines = _Cosines()
            for number, (found, reader, proxied) in enumerate(opened):
                starts = _starts(found, clips_per_video, seed=number)
                _compare(encoder, found, reader, proxied, starts, cosines)
            rows += _rows(f"{what}, {proxy.codec}", cosines)
        sizes = [Path(name, f"{path.name}.arrow").stat().st_size for path in paths]
        hours = sum(found.timeline.duration_seconds for found, *_ in opened) / 3600
    size = sum(sizes) / 1e6 / hours
    times = sum(sizes) / sum(path.stat().st_size for path in paths)
    notes = f"{times:.1f} times the videos"
    return [*rows, measure.row(f"size, {proxy.codec}", size, unit="MB/hour", notes=notes)]


def _opened(
    path: Path, proxy: ProxyConfig, folder: Path
) -> tuple[VideoProbe, ClipReader, ProxyReader]:
    found = probe(path)
    target = folder / f"{path.name}.arrow"
    write_proxy(path, found.as_row(), _CLIP, proxy_settings(proxy, _CLIP), target)
    rotation = found.row["rotation_degrees"]
    reader = ClipReader(path, found.timeline, found.keyframes, rotation, _CLIP)
    return found, reader, ProxyReader(target, found.timeline, _CLIP)


def _encoders(weights: Path) -> Iterable[tuple[str, PreparedEncoder]]:
    settings = {"R(2+1)D-18, random:0": EncoderConfig(name="r2plus1d_18", weights="random:0")}
    if (file := weights / _WEIGHTS).is_file():
        settings["MC3-18, trained"] = EncoderConfig(name="mc3_18", weights=str(file))
    for what, config in settings.items():
        encoder = load_encoder(config).encoder
        yield what, prepare_for_inference(encoder, device="cpu", precision="fp32")


def _starts(found: VideoProbe, count: int, *, seed: int) -> list[float]:
    """Random starts that leave room for one sample more."""
    latest = found.timeline.duration_seconds - _CLIP.seconds - 1 / _CLIP.frame_rate
    starts: list[float] = np.random.default_rng(seed).uniform(0, latest, count).tolist()
    return starts


def _compare(
    encoder: PreparedEncoder,
    found: VideoProbe,
    reader: ClipReader,
    proxied: ProxyReader,
    starts: Sequence[float],
    cosines: _Cosines,
) -> None:
    samples = sampled_frames(found.timeline, _CLIP)
    for start in starts:
        own = clip_frames(found.timeline, _CLIP, start)
        later = clip_frames(found.timeline, _CLIP, start + 1 / _CLIP.frame_rate)
        first = int(start * _CLIP.frame_rate)
        sampled = samples[(first + np.arange(_CLIP.length)).clip(max=len(samples) - 1)]
        clips = [
            reader.read(own, _WINDOW),
            proxied.read(proxied.frames_at(start), _WINDOW),
            reader.read(later, _WINDOW),
            reader.read(sampled, _WINDOW),
            proxied.read(sampled, _WINDOW),
        ]
        mine, trained, shifted, before, coded = _encoded(encoder, np.stack(clips))
        cosines.trained.append(_cosine(mine, trained))
        cosines.later.append(_cosine(mine, shifted))
        cosines.coded.append(_cosine(before, coded))


def _encoded(encoder: PreparedEncoder, clips: np.ndarray) -> torch.Tensor:
    return forward_features(encoder, normalise_clips(torch.from_numpy(clips))).double()


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def _rows(what: str, cosines: _Cosines) -> list[Row]:
    texts = {
        "coded": "proxy, same frames",
        "trained": "proxy, same start",
        "later": "for scale: one sample later",
    }
    return [
        measure.row(
            f"cosine of features, {text} ({what})",
            statistics.fmean(values := getattr(cosines, name)),
            unit="",
            notes=f"least {min(values):.5f} of {len(values)}",
        )
        for name, text in texts.items()
    ]


def _accuracies(quick: bool, proxy: ProxyConfig) -> list[Row]:
    """Best validation accuracies on the demo data set, trained both ways with the same seeds."""
    seeds = range(1 if quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(str(make_demo(folder)))
        names = ("accuracy_action", "accuracy_region")
        found: dict[bool, list[dict[str, float]]] = {
            enabled: [_trained(config, proxy, enabled=enabled, seed=seed) for seed in seeds]
            for enabled in (False, True)
        }
    return [
        measure.row(
            f"validation {name} on the demo data set, trained from {proxy.codec} proxies",
            statistics.fmean(result[name] for result in found[True]),
            unit="",
            baseline=statistics.fmean(result[name] for result in found[False]),
            notes="; ".join(
                f"seed {seed}: {with_[name]:.3f} against {without[name]:.3f}"
                for seed, with_, without in zip(seeds, found[True], found[False], strict=True)
            ),
        )
        for name in names
    ]


def _trained(config: Config, proxy: ProxyConfig, *, enabled: bool, seed: int) -> dict[str, float]:
    """Train and return the metrics of the best epoch."""
    settings: dict[str, Any] = config.model_dump()
    settings["ingest"]["proxy"] = {**proxy.model_dump(), "enabled": enabled}
    settings["pretrain"]["seed"] = seed
    reports = pipeline.run_all(Config.model_validate(settings), through="pretrain")
    report = reports["pretrain"]
    table = read_table(report.artifact.file("metrics.parquet"), "metrics").to_pylist()
    best = report.summary["best_epoch"] - 1  # the table counts from 0
    return {
        row["name"]: row["value"]
        for row in table
        if row["phase"] == "valid" and row["epoch"] == best
    }


if __name__ == "__main__":
    _options = measure.arguments(
        __doc__,
        training={"action": argparse.BooleanOptionalAction, "default": False},
        codec={"choices": ["mjpeg", "h264"], "default": "mjpeg"},
        quality={"type": int},
    )
    _proxy = ProxyConfig(codec=_options.codec, quality=_options.quality)
    _rows_found = run(_options.quick, _proxy, training=_options.training)
    measure.report(_rows_found, _options.json)

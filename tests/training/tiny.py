"""A tiny training set: four real videos of four seconds, two classes, and jobs that train on it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch

from tests.synthetic import VideoSpec, write_video
from tsp_core.config import ClipConfig, EncoderConfig, PretrainConfig
from tsp_core.schemas import CLIPS, VIDEOS, table_from_rows
from tsp_core.training.distributed import World
from tsp_core.training.index import write_index
from tsp_core.training.job import TrainingJob
from tsp_core.training.loop import OnUpdate, Trainer

CLIP = ClipConfig(length=8, frame_rate=15, resize_height=20, resize_width=24, crop_size=16)
CLASSES = ("walk", "sit")
FEATURE_SIZE = 128
PRETRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "clips_per_segment": 2,
    "warmup_epochs": 1.0,
    "milestones": (1.5,),
    "layers_lr": 1e-2,
    "heads_lr": 1e-1,
}


def write_videos(folder: Path, count: int = 4) -> list[Path]:
    """Write videos of 60 frames at 15 fps."""
    spec = VideoSpec(num_frames=60, rate=Fraction(15), width=32, height=32)
    return [write_video(folder / f"video{number}.mp4", spec) for number in range(count)]


def videos_table(paths: list[Path]) -> pa.Table:
    """Build the VIDEOS table by decoding."""
    return table_from_rows([_video_row(path) for path in paths], VIDEOS)


def clips_table(paths: list[Path]) -> pa.Table:
    """Build the CLIPS table: an action and two background segments per video.

    The last video is the validation subset.
    """
    rows = []
    for number, path in enumerate(paths):
        subset = "validation" if number == len(paths) - 1 else "training"
        for start, end, label in ((0.0, 1.2, -1), (1.2, 2.5, number % 2), (2.5, 4.0, -1)):
            rows.append(
                {
                    "video": path.stem,
                    "subset": subset,
                    "label_index": label,
                    "region": 0 if label >= 0 else 1,
                    "t_start": start,
                    "t_end": end,
                    "first_start": start,
                    "last_start": end - CLIP.seconds,
                    "status": "ok",
                }
            )
    return table_from_rows(rows, CLIPS)


def global_features(paths: list[Path]) -> dict[str, np.ndarray]:
    """Draw a GVF per video."""
    draw = np.random.default_rng(7).random((len(paths), FEATURE_SIZE), dtype=np.float32)
    return {path.stem: values for path, values in zip(paths, draw, strict=True)}


def make_job(folder: Path, *, gvf: bool = True, **pretrain: Any) -> TrainingJob:
    """Write videos and index into a folder; return a job that trains on them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_videos(folder / "videos")
    write_index(
        folder,
        videos=videos_table(paths),
        clips=clips_table(paths),
        gvf=global_features(paths) if gvf else None,
    )
    return TrainingJob(
        folder=str(folder),
        work_uri=str(folder / "work"),
        clip=CLIP,
        encoder=EncoderConfig(name="r2plus1d_tiny", weights="random:0"),
        pretrain=PretrainConfig(**{**PRETRAIN, **pretrain}),
        classes=CLASSES,
        pooling="max" if gvf else "none",
        gvf_stride=16,
        weights_identity="random:0:r2plus1d_tiny",
        device="cpu",
    )


def make_trainer(job: TrainingJob, on_update: OnUpdate = lambda update: None) -> Trainer:
    """A trainer alone in this process."""
    return Trainer(job, World(rank=0, size=1, device=torch.device("cpu")), on_update)


def _video_row(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
        time_base, rate = stream.time_base, stream.average_rate
    return {
        "video": path.stem,
        "uri": str(path),
        "status": "ok",
        "content_hash": path.stem,
        "rotation_degrees": 0,
        "time_base_num": time_base.numerator,
        "time_base_den": time_base.denominator,
        "num_frames": len(frames),
        "duration_seconds": len(frames) / float(rate),
        "frame_rate_num": rate.numerator,
        "frame_rate_den": rate.denominator,
        "is_variable_rate": False,
        "pts": [pts for pts, _ in frames],
        "keyframes": [index for index, (_, is_key) in enumerate(frames) if is_key],
    }

"""A dataset so small that the whole pipeline takes seconds, and its configuration."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import yaml

from tests.synthetic import VideoSpec, write_video

NUM_VIDEOS = 7
LABELS = ("walk", "sit")


def write_videos(folder: Path, *, first: int = 0, count: int = NUM_VIDEOS) -> None:
    """Write videos of about four seconds; their lengths differ, and so does their content."""
    for number in range(first, first + count):
        spec = VideoSpec(num_frames=52 + 3 * number, rate=Fraction(15), width=32, height=32)
        write_video(folder / f"video{number}.mp4", spec)


def write_annotations(path: Path, *, count: int = NUM_VIDEOS) -> None:
    """Two actions in every video; the last two videos are the validation subset."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "t-start", "t-end", "subset"])
        for number in range(count):
            subset = "validation" if number in (NUM_VIDEOS - 2, NUM_VIDEOS - 1) else "training"
            for start, end, label in ((0.4, 1.4, number), (2.0, 2.9, number + 1)):
                writer.writerow([f"video{number}", LABELS[label % 2], start, end, subset])


def write_config(path: Path, *, videos: str, annotations: Path, **runtime: str | int) -> Path:
    """Write a configuration in which every kind of artifact, shard and checkpoint occurs."""
    values = {
        "name": "chaos",
        "root": "set-by-the-caller",
        "clip": {
            **{"length": 8, "frame_rate": 15},
            **{"resize_height": 20, "resize_width": 24, "crop_size": 16},
        },
        "encoder": {"name": "r2plus1d_tiny", "weights": "random:0"},
        "ingest": {"videos": videos, "shard_size": 2},
        "annotate": {
            **{"annotations": str(annotations), "format": "csv"},
            "min_background_clips": 0.5,
        },
        "gvf": {"stride": 8, "shard_size": 2},
        "pretrain": {
            **{"epochs": 2, "batch_size": 4, "clips_per_segment": 2, "workers": 0},
            **{"warmup_epochs": 1.0, "milestones": [1.5], "layers_lr": 1e-2, "heads_lr": 1e-1},
            "checkpoint_minutes": 1e-9,  # after every step, so that kills find them
        },
        "export": {
            **{"stride": 8, "shard_size": 2, "formats": ["h5", "npy", "pkl", "parquet"]},
            "recipes": ["actionformer"],
        },
        "evaluate": {"detector_epochs": 3},
        "runtime": {"device": "cpu", "workers": 2, **runtime},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def make_dataset(folder: Path) -> Path:
    """Write videos, annotations and the configuration; return the configuration."""
    write_videos(folder / "videos")
    write_annotations(folder / "annotations.csv")
    return write_config(
        folder / "config.yaml",
        videos=str(folder / "videos"),
        annotations=folder / "annotations.csv",
    )

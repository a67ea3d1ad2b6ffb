"""Small real videos, and the settings of clips that suit them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.synthetic import VideoSpec, write_video
from tsp_core.config import ClipConfig, EncoderConfig
from tsp_core.features.extraction import Extractor
from tsp_core.model.weights import load_encoder
from tsp_core.video.probe import probe

CLIP = ClipConfig(length=8, frame_rate=10, resize_height=20, resize_width=24, crop_size=16)
ENCODER = "r2plus1d_tiny"


def video(path: Path, *, seconds: float = 3.2, rate: int = 20) -> Path:
    """Write a video of the given length."""
    num_frames = round(seconds * rate)
    return write_video(
        path, VideoSpec(num_frames=num_frames, rate=Fraction(rate), width=32, height=32)
    )


def cut(path: Path, source: Path) -> Path:
    """Write the first half of a video file: its end, where the index is, is missing."""
    content = source.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def row(path: Path) -> dict[str, Any]:
    """The row of the videos table of a good video."""
    return {**probe(path).as_row(), "video": path.stem, "uri": str(path), "status": "ok"}


def extractor(batch_size: int = 4, **options: str) -> Extractor:
    """An extractor with the small encoder and the weights of seed 0."""
    loaded = load_encoder(EncoderConfig(name=ENCODER, weights="random:0"))
    fields = {"device": "cpu", "batch_size": batch_size, **options}
    return Extractor(loaded.encoder, loaded.feature_size, **fields)

"""The per-clip method that everything is measured against.

A plain restatement of how the method's released code feeds its encoder: for every clip open the
file, seek, decode the clip's range, convert all of it to RGB, pick the frames, then float, bilinear
resize to 128x171, normalise, centre crop; fp32 convolutions in the default memory layout. Reading
is that of `torchvision.io.read_video` (0.20), which the released code calls: it seeks to before the
fifth tick ahead of the clip, decodes five frames beyond its end in case that frames come out of
order, decodes the sound of the same range, and collects garbage at every tenth stream.
"""

from __future__ import annotations

import gc
import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

LENGTH, FRAME_RATE = 16, 15.0
MEAN = torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)
STD = torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)

_EXTRA_FRAMES = 5
_STREAMS_PER_COLLECTION = 10
_streams_read = itertools.count(1)


def clip_starts(num_frames: int, fps: float, stride: int) -> list[float]:
    """Start of every clip in seconds."""
    total = int(num_frames * (FRAME_RATE / fps))
    step = fps / FRAME_RATE
    if step.is_integer():
        frames = np.arange(num_frames)[:: int(step)]
    else:
        frames = (torch.arange(total, dtype=torch.float32) * step).floor().numpy()
    return [float(frames[i]) / fps for i in range(0, len(frames) - LENGTH + 1, stride)]


def read_clip(path: Path, start_seconds: float, fps: float) -> torch.Tensor:
    """Decode and transform one clip: float32 [3, 16, 112, 112]."""
    frames = _read_video(path, start_seconds, start_seconds + LENGTH / FRAME_RATE)
    step = fps / FRAME_RATE
    if step.is_integer():
        clip = frames[:: int(step)][:LENGTH]
    else:
        clip = frames[(torch.arange(LENGTH, dtype=torch.float32) * step).floor().long()]
    return transform(clip)


def transform(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [L, H, W, 3] to float32 [3, L, 112, 112]."""
    clip = frames.permute(3, 0, 1, 2).to(torch.float32) / 255
    clip = interpolate(clip, size=(128, 171), mode="bilinear", align_corners=False)
    clip = (clip - MEAN) / STD
    top, left = round((128 - 112) / 2.0), round((171 - 112) / 2.0)
    return clip[..., top : top + 112, left : left + 112]


def _read_video(path: Path, start_seconds: float, end_seconds: float) -> torch.Tensor:
    with av.open(str(path), metadata_errors="ignore") as container:
        pictures = _read_stream(container, container.streams.video[0], start_seconds, end_seconds)
        for stream in container.streams.audio[:1]:
            sound = _read_stream(container, stream, start_seconds, end_seconds)
            [frame.to_ndarray() for frame in sound]
    return torch.from_numpy(np.stack([frame.to_rgb().to_ndarray() for frame in pictures]))


def _read_stream(
    container: Any, stream: Any, start_seconds: float, end_seconds: float
) -> list[Any]:
    """Frames of the range in order, and the one before where none is at its start."""
    if next(_streams_read) % _STREAMS_PER_COLLECTION == 0:
        gc.collect()
    ticks_per_second = 1 / Fraction(stream.time_base)
    start = math.floor(start_seconds * ticks_per_second)
    end = math.ceil(end_seconds * ticks_per_second)
    seek_to = max(start - 1 - _EXTRA_FRAMES, 0)
    container.seek(seek_to, any_frame=False, backward=True, stream=stream)
    frames: dict[int, Any] = {}
    extra = 0
    for frame in container.decode(stream):
        frames[frame.pts] = frame
        if frame.pts >= end:
            if extra == _EXTRA_FRAMES:
                break
            extra += 1
    chosen = [frames[pts] for pts in sorted(frames) if start <= pts <= end]
    before = [pts for pts in frames if pts < start]
    if start > 0 and start not in frames and before:
        chosen.insert(0, frames[max(before)])
    return chosen

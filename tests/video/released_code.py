"""A plain emulation of how the method's released code samples frames, clip by clip.

Written from its description alone: `_resample_video_idx` with torch tensors, and
`torchvision.io.read_video` on a dictionary from timestamp to frame, so that it shares no code and
no vectorisation with what it checks.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch


def resample(num_frames: int, original_fps: float, new_fps: float) -> slice | torch.Tensor:
    step = float(original_fps) / new_fps
    if step.is_integer():
        return slice(None, None, int(step))
    idxs = torch.arange(num_frames, dtype=torch.float32) * step
    return idxs.floor().to(torch.int64)


def clip_starts(
    video_frames: int, fps: float, frame_rate: float, clip_length: int, stride: int
) -> list[np.float64]:
    total = int(video_frames * (float(frame_rate) / fps))
    idxs = resample(total, fps, frame_rate)
    frame_idxs = np.arange(video_frames)[idxs] if isinstance(idxs, slice) else idxs.numpy()
    return list(frame_idxs[np.arange(0, frame_idxs.shape[0] - clip_length + 1, stride)] / fps)


def read_video(pts: list[int], time_base: Fraction, start: float, end: float) -> list[int]:
    """Indices of the frames that a call with pts_unit='sec' returns, in order."""
    start_offset = math.floor(start * (1 / time_base))
    end_offset = math.ceil(end * (1 / time_base))
    frames = {ticks: index for index, ticks in enumerate(pts)}
    result = [frames[i] for i in sorted(frames) if start_offset <= i <= end_offset]
    if start_offset > 0 and start_offset not in frames:
        preceding = [i for i in frames if i < start_offset]
        if preceding:
            result.insert(0, frames[max(preceding)])
    return result


def clip(
    pts: list[int], time_base: Fraction, fps: float, frame_rate: float, length: int, start: float
) -> list[int]:
    """Indices of a clip's frames; fewer than `length` where the released code stops in an error."""
    shown = read_video(pts, time_base, start, start + length / frame_rate)
    idxs = resample(length, fps, frame_rate)
    if isinstance(idxs, slice):
        return shown[idxs][:length]
    return [shown[int(i)] for i in idxs if i < len(shown)]

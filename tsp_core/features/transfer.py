"""Clips to the GPU and features back, while the GPU is at work on other clips.

Copies run on a stream of their own from and to pinned memory. Clips that overlap (strides below the
clip length) share their frames' memory, and are laid out anew on the GPU: each frame is copied
once, whatever the stride. On the CPU nothing is copied.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tsp_core.video.clips import ClipBatch


@dataclass(frozen=True, kw_only=True)
class DeviceBatch:
    """Clips on the device, or on their way to it.

    Attributes:
        first_index: Index of the first of them in the video's grid.
        coming: The clips; not to be read before they have arrived.
        arrived: When they have; None if they are there.
    """

    first_index: int
    coming: torch.Tensor
    arrived: torch.cuda.Event | None

    def clips(self) -> torch.Tensor:
        """Float32 [B, 3, L, S, S]; the current stream waits for them, the caller does not."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(self.coming.device)
            stream.wait_event(self.arrived)
            self.coming.record_stream(stream)  # its memory is kept until the stream has used it
        return self.coming


@dataclass(frozen=True, kw_only=True)
class HostFeatures:
    """Features on their way back; `arrived` as in `DeviceBatch`."""

    coming: torch.Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> NDArray[np.float32]:
        """Wait for them: float32 [B, F]."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.coming.numpy()


def sent_to_device(batches: Iterator[ClipBatch], device: torch.device) -> Iterator[DeviceBatch]:
    """Start the copy of each batch as it comes."""
    stream = _copy_stream(device) if device.type == "cuda" else None
    for batch in batches:
        if stream is None:
            clips, arrived = batch.clips, None
        else:
            with torch.cuda.stream(stream):
                clips = copied_once(batch.clips, device, pinned=True)
                arrived = stream.record_event()
        yield DeviceBatch(first_index=batch.first_index, coming=clips, arrived=arrived)


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all videos: memory is kept for the stream that it was used on, and not for others."""
    return torch.cuda.Stream(device)


def sent_to_host(features: torch.Tensor) -> HostFeatures:
    """Start the copy of features [B, F]."""
    if features.device.type != "cuda":
        return HostFeatures(coming=features, arrived=None)
    found = features.to("cpu", non_blocking=True)
    arrived = torch.cuda.current_stream(features.device).record_event()
    return HostFeatures(coming=found, arrived=arrived)


def copied_once(clips: torch.Tensor, device: torch.device, *, pinned: bool) -> torch.Tensor:
    """Copy clips that may share memory, all of it once, and lay them out as they were.

    Args:
        clips: Any strides; overlapping ones are what it is for.
        device: Where to.
        pinned: Go through page-locked memory, which the GPU reads while the caller goes on.
    """
    steps = zip(clips.shape, clips.stride(), strict=True)
    num_values = 1 + sum((size - 1) * step for size, step in steps)
    memory = clips.as_strided((num_values,), (1,))
    if pinned:
        memory = memory.pin_memory()
    there = torch.empty(num_values, dtype=clips.dtype, device=device)
    there.copy_(memory, non_blocking=True)
    return there.as_strided(clips.shape, clips.stride())

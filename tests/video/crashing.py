"""Timelines that make whoever decodes by them crash: a stand-in for a file that does."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.isolation import tasks
from tsp_core.video import apart
from tsp_core.video.sampling import FrameTimeline


@dataclass(frozen=True, kw_only=True)
class CrashingTimeline(FrameTimeline):
    """Crashes the process that decodes by it.

    Attributes:
        owner: Process that is spared.
        marker: Crash only while there is no such file, and make it; None crashes always.
        signal: How, or 0 to hang.
    """

    owner: int
    marker: Path | None = None
    signal: int = signal.SIGSEGV

    @property
    def num_frames(self) -> int:
        if os.getpid() != self.owner and (self.marker is None or not self.marker.exists()):
            if self.marker is not None:
                self.marker.touch()
            if self.signal == 0:
                time.sleep(600)
            os.kill(os.getpid(), self.signal)
        return len(self.pts)


def crashing(
    timeline: FrameTimeline, *, marker: Path | None = None, how: int = signal.SIGSEGV
) -> CrashingTimeline:
    """The same timeline, crashing in other processes."""
    pts: NDArray[np.int64] = timeline.pts
    return CrashingTimeline(
        pts=pts,
        time_base=timeline.time_base,
        frame_rate=timeline.frame_rate,
        is_variable=timeline.is_variable,
        has_unordered_pts=timeline.has_unordered_pts,
        owner=os.getpid(),
        marker=marker,
        signal=how,
    )


def crash(path: Path, *arguments: object) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_on_one(path: Path, *arguments: Any) -> NDArray[np.uint8]:
    """Read a clip, but of one video."""
    return crash(path) if path.name == "video2.mp4" else apart.read_clip(path, *arguments)


def process_id(path: Path) -> int:
    return os.getpid()


def fill_memory(path: Path, num_bytes: int) -> None:
    tasks.fill_memory(num_bytes)


def torch_is_there(path: Path) -> bool:
    """Whether decoding brought torch into this process."""
    from tsp_core.video import pictures, probe

    assert pictures is not None
    assert probe is not None
    return "torch" in sys.modules

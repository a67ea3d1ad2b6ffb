"""What a run at the size of ActivityNet costs, and how long it takes on W workers.

The clock is simulated: shards are handed out one after the other, as a flow submits them, to the
worker that is free first. What a shard costs is made up from rates of decoding and of the encoder;
what handing out, planning and finishing cost is measured by `benchmarks.scale_simulation`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_VIDEOS, NUM_HOURS = 20_000, 650.0
"""ActivityNet v1.3: 19,994 videos, about 648 hours."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Rates of one worker: two cores and a GPU, or a share of one.

    Attributes:
        decode_frames_per_second: H.264 320x240 decoded, converted and resized by one thread of
            PyAV 18.1.
        probe_frames_per_second: The same, decoded only, as ingest does.
        clips_per_second: R(2+1)D-34 on clips of 16x112x112: 305 GFLOP each (torch's counter) at a
            sustained 100 TFLOP/s, a third of an A100's peak in bf16.
        source_frame_rate: Frames per second of the files.
        clip_seconds: Time between clips at stride 16: 16 frames at 15 per second.
        video_overhead_seconds: Opening and reading an object, writing rows.
        worker_start_seconds: Imports and weights, once per worker and stage.
    """

    decode_frames_per_second: float = 5300.0
    probe_frames_per_second: float = 10500.0
    clips_per_second: float = 330.0
    source_frame_rate: float = 30.0
    clip_seconds: float = 16 / 15
    video_overhead_seconds: float = 0.05
    worker_start_seconds: float = 15.0

    def probe_seconds(self, durations: np.ndarray) -> np.ndarray:
        """Seconds of a worker for each video at ingest."""
        frames = durations * self.source_frame_rate
        return frames / self.probe_frames_per_second + self.video_overhead_seconds

    def feature_seconds(self, durations: np.ndarray) -> np.ndarray:
        """The same at gvf and export, where decoding and the encoder overlap."""
        decode = durations * self.source_frame_rate / self.decode_frames_per_second
        encode = durations / self.clip_seconds / self.clips_per_second
        return np.maximum(decode, encode) + self.video_overhead_seconds


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What the orchestration costs, measured.

    Attributes:
        submit_seconds: CPU seconds of the flow's process per task run.
        server_seconds: CPU seconds of Prefect's server per task run.
        requests: HTTP requests to the server per task run.
        events: Events sent to it per task run.
        memory_bytes: What the flow's process grows by per task run.
        serial_seconds: Planning and finishing, by stage, for all videos.
    """

    submit_seconds: float
    server_seconds: float
    requests: float
    events: float
    memory_bytes: float
    serial_seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """A stage's shards, in seconds of a worker each."""

    name: str
    shard_seconds: Sequence[float]
    start_seconds: float


def durations(num_videos: int, hours: float, seed: int = 0) -> np.ndarray:
    """Draw lengths of videos, in seconds: as many short as long ones, none beyond 13 minutes."""
    drawn = np.random.default_rng(seed).lognormal(mean=4.6, sigma=0.55, size=num_videos)
    drawn = np.clip(drawn, 5.0, 760.0)
    scaled: np.ndarray = drawn * (hours * 3600 / drawn.sum())
    return scaled


def shards_of(seconds: np.ndarray, size: int) -> list[float]:
    """Sum up videos by shard, in order."""
    return [float(seconds[i : i + size].sum()) for i in range(0, len(seconds), size)]


def stage_wall_seconds(work: StageWork, handling: Handling, num_workers: int) -> float:
    """Wall seconds of one stage on so many workers, its serial parts included."""
    per_task = max(handling.submit_seconds, handling.server_seconds)
    free = [work.start_seconds] * num_workers
    heapq.heapify(free)
    for number, seconds in enumerate(work.shard_seconds, start=1):
        begin = max(heapq.heappop(free), number * per_task)
        heapq.heappush(free, begin + seconds)
    return max(free) + handling.serial_seconds[work.name]


def knee(walls: Sequence[tuple[int, float]], *, worth: float = 0.5) -> int:
    """The most workers at which each is still used for at least `worth` of its time.

    Args:
        walls: Workers and wall seconds, the first of one worker.
        worth: Share of the ideal speed-up.
    """
    alone = walls[0][1]
    return max(workers for workers, wall in walls if alone / wall >= worth * workers)

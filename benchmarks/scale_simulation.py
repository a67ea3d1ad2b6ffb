"""A run at the size of ActivityNet, simulated: 20,000 videos, 650 hours, metadata only.

Measured with the project's own code: listing, planning and merging the metadata of the videos, and
handing shards to Prefect, on a server of its own. Made up: decoding and the encoder
(`benchmarks/scale_costs.py` says what they cost and where that comes from). The wall time on W
workers comes from a simulated clock. CPU time is counted, so a busy machine does not matter.
`python -m benchmarks.scale_simulation [--quick]`
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from prefect import flow
from prefect.events.clients import PrefectEventsClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.scale_costs import (
    NUM_HOURS,
    NUM_VIDEOS,
    Costs,
    Handling,
    StageWork,
    durations,
    knee,
    shards_of,
    stage_wall_seconds,
)
from tasks.stages import run_stage
from tests.fakes import FakeStages
from tests.servers import prefect_server
from tsp_core import pipeline
from tsp_core.config import Config
from tsp_core.schemas import PROBES, table_from_rows, write_table
from tsp_core.stages import ingest

WORKERS = (1, 8, 64)
_SWEEP = tuple(2**power for power in range(12))
_STAGES = ("ingest", "gvf", "export")


def run(quick: bool) -> list[Row]:
    """Measure the handling, then simulate."""
    with tempfile.TemporaryDirectory(prefix="tsp-scale-") as folder:
        tasks = _measure_tasks(Path(folder), 60 if quick else 400)
        metadata = _measure_metadata(Path(folder), 500 if quick else 2000)
    scale = NUM_VIDEOS / metadata.num_videos
    serial = dict.fromkeys(_STAGES, metadata.cpu_seconds * scale)
    handling = Handling(
        submit_seconds=tasks.flow_seconds,
        server_seconds=tasks.server_seconds,
        requests=tasks.requests,
        events=tasks.events,
        memory_bytes=tasks.memory_bytes,
        serial_seconds=serial,
    )
    return [*_handling_rows(handling, metadata, scale), *simulate(handling)]


def simulate(handling: Handling, costs: Costs = Costs()) -> list[Row]:  # noqa: B008 - frozen
    """Wall time of the per-video stages on 1 to 2048 workers."""
    works = _works(costs)
    walls = [
        (workers, sum(stage_wall_seconds(work, handling, workers) for work in works))
        for workers in _SWEEP
    ]
    num_tasks = sum(len(work.shard_seconds) for work in works)
    alone = walls[0][1]
    rows = [
        measure.row(
            f"per-video stages, {workers} worker{'s' if workers > 1 else ''}",
            wall / 3600,
            unit="h",
            ratio=alone / wall,
            notes=f"each busy {alone / wall / workers:.0%}; {num_tasks / wall:.1f} tasks/s, "
            f"{num_tasks * handling.requests / wall:.1f} requests/s to Prefect",
        )
        for workers, wall in walls
        if workers in WORKERS or workers == _SWEEP[-1]
    ]
    limit = min(1 / handling.submit_seconds, 1 / handling.server_seconds)
    found = knee(walls)
    return [
        *rows,
        measure.row("task runs", num_tasks, unit="", notes=_counts(works)),
        measure.row(
            "knee",
            found,
            unit="workers",
            notes="beyond it a worker is busy for less than half of the time: the serial parts "
            f"of the stages and the start of workers ({limit:.0f} tasks/s could be handed out)",
        ),
    ]


def _works(costs: Costs) -> list[StageWork]:
    lengths = durations(NUM_VIDEOS, NUM_HOURS)
    config = Config()
    seconds: dict[str, tuple[np.ndarray, int]] = {
        "ingest": (costs.probe_seconds(lengths), config.ingest.shard_size),
        "gvf": (costs.feature_seconds(lengths), config.gvf.shard_size),
        "export": (costs.feature_seconds(lengths), config.export.shard_size),
    }
    return [
        StageWork(
            name=name,
            shard_seconds=shards_of(each, size),
            start_seconds=costs.worker_start_seconds,
        )
        for name, (each, size) in seconds.items()
    ]


def _counts(works: list[StageWork]) -> str:
    return ", ".join(f"{work.name} {len(work.shard_seconds)}" for work in works)


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    num_videos: int
    cpu_seconds: float
    peak_bytes_per_video: float


def _measure_metadata(folder: Path, num_videos: int) -> _Metadata:
    """Plan and finish ingest with the frame times of videos of two minutes; nothing is decoded."""
    (folder / "videos").mkdir()
    for number in range(num_videos):
        (folder / "videos" / f"v_{number:06d}.mp4").write_bytes(str(number).encode())
    values = {"root": str(folder / "root"), "ingest": {"videos": str(folder / "videos")}}
    config = Config.model_validate(values)
    planning = time.process_time()
    plan = ingest.plan(config, {})
    planning = time.process_time() - planning
    for shard in plan.shards:
        rows = [_probe(*json.loads(item)) for item in shard.videos]
        write_table(shard.uri, table_from_rows(rows, PROBES), PROBES)
    before, began = _peak_bytes(), time.process_time()
    ingest.finish(config, {}, plan)
    spent = time.process_time() - began
    return _Metadata(
        num_videos=num_videos,
        cpu_seconds=planning + spent,
        peak_bytes_per_video=(_peak_bytes() - before) / num_videos,
    )


def _probe(uri: str, token: str) -> dict[str, Any]:
    num_frames = round(NUM_HOURS * 3600 / NUM_VIDEOS * Costs().source_frame_rate)
    return {
        "uri": uri,
        "token": token,
        "status": "ok",
        "content_hash": uri,
        "num_frames": num_frames,
        "duration_seconds": num_frames / Costs().source_frame_rate,
        "is_variable_rate": False,
        "pts": list(range(0, 1001 * num_frames, 1001)),
        "keyframes": list(range(0, num_frames, 250)),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, kw_only=True)
class _Tasks:
    """Per task run."""

    flow_seconds: float
    server_seconds: float
    requests: float
    events: float
    memory_bytes: float


def _measure_tasks(folder: Path, num_tasks: int) -> _Tasks:
    """Run shards that do nothing through Prefect; what is spent beyond a few of them is theirs."""
    with prefect_server(folder) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        few, many = (
            _run_tasks(folder, count, server.process_group) for count in (10, 10 + num_tasks)
        )
    return _Tasks(
        **{name: max(0.0, many[name] - few[name]) / num_tasks for name in _Tasks.__annotations__}
    )


def _run_tasks(folder: Path, count: int, server_group: int) -> dict[str, float]:
    config = Config.model_validate({"root": str(folder / f"tasks-{count}")})
    stages = FakeStages()
    stages["ingest"].shards = count

    @flow(name="scale")
    def run_shards() -> None:
        run_stage(config, "ingest", {}, key_prefix="scale")

    real = pipeline.stage_module
    pipeline.stage_module = stages.by_name.__getitem__  # type: ignore[assignment]
    with _counted() as traffic:
        memory, cpu, server = _rss_bytes(), time.process_time(), _cpu_seconds(server_group)
        began = time.monotonic()
        try:
            run_shards()
        finally:
            pipeline.stage_module = real
        spent, grown = time.process_time() - cpu, _rss_bytes() - memory
        return {
            "flow_seconds": spent,
            "server_seconds": _settled_cpu_seconds(server_group, began) - server,
            "requests": traffic["requests"],
            "events": traffic["events"],
            "memory_bytes": grown,
        }


def _settled_cpu_seconds(server_group: int, since: float) -> float:
    """CPU seconds of the server once it has worked off the events, without its idle loops."""
    deadline = time.monotonic() + 60
    before, now = -1.0, _cpu_seconds(server_group)
    while now - before > 0.3 and time.monotonic() < deadline:
        time.sleep(3)
        before, now = now, _cpu_seconds(server_group)
    idle_share = (now - before) / 3
    return now - idle_share * (time.monotonic() - since)


@contextmanager
def _counted() -> Iterator[dict[str, int]]:
    """Count what goes to Prefect's server from this process."""
    counts = {"requests": 0, "events": 0}
    places = (
        (httpx.Client, "send", "requests"),
        (httpx.AsyncClient, "send", "requests"),
        (PrefectEventsClient, "emit", "events"),
    )
    real = [getattr(owner, name) for owner, name, _ in places]

    def counting(function: Any, key: str) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[key] += 1
            return function(*args, **kwargs)

        return counted

    for (owner, name, key), function in zip(places, real, strict=True):
        setattr(owner, name, counting(function, key))
    try:
        yield counts
    finally:
        for (owner, name, _), function in zip(places, real, strict=True):
            setattr(owner, name, function)


def _cpu_seconds(group: int) -> float:
    """CPU seconds so far of the processes of a group."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _handling_rows(handling: Handling, metadata: _Metadata, scale: float) -> list[Row]:
    merge = metadata.cpu_seconds * scale
    peak = metadata.peak_bytes_per_video * NUM_VIDEOS
    return [
        measure.row(
            f"plan and merge the metadata of {NUM_VIDEOS} videos",
            merge,
            unit="CPU s",
            notes=f"from {metadata.num_videos} videos; the flow's process grows by "
            f"{peak / 1e9:.1f} GB meanwhile",
        ),
        measure.row("flow's process", 1e3 * handling.submit_seconds, unit="CPU ms/task"),
        measure.row("Prefect's server (SQLite)", 1e3 * handling.server_seconds, unit="CPU ms/task"),
        measure.row(
            "messages to the server",
            handling.requests + handling.events,
            unit="per task",
            notes=f"{handling.requests:.2f} requests, {handling.events:.2f} events",
        ),
        measure.row("memory of the flow's process", handling.memory_bytes / 1e3, unit="kB/task"),
    ]


if __name__ == "__main__":
    _options = measure.arguments(__doc__)
    measure.report(run(_options.quick), _options.json)

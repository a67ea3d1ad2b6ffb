"""What a run costs in which nothing is left to do, by the number of videos that are done.

The root is filled by the stages' own code; only the measuring of files and the model's output are
made up: every file "is" one and the same short video with a hash of its own. Then `tsp run` on it
is timed against `tsp run` on a root with 16 videos: the difference is what lies beyond the start of
Prefect. `python -m benchmarks.orchestration [--quick] [--videos N]`
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core import artifacts, pipeline, schemas
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config, StageName
from tsp_core.config.io import load_config
from tsp_core.features.rows import FeatureRows, table_from_features
from tsp_core.stages import shards
from tsp_core.stages.base import Plan, Shard
from tsp_core.stages.shards import Computed
from tsp_core.video.probe import probe

NUM_VIDEOS = 10_000
TARGET_SECONDS = 20
HELP_TARGET_SECONDS = 1
_FEATURE_SIZE = 128
_CONFIG = """\
name: many
root: root
encoder: {{name: r2plus1d_tiny, weights: random:0}}
ingest: {{videos: videos, shard_size: {shard_size}}}
annotate: {{annotations: annotations.json, format: activitynet, min_background_clips: 1}}
export: {{formats: [h5]}}
"""


def run(quick: bool, num_videos: int | None = None) -> list[Row]:
    """Measure with 10,000 videos (1,000 when quick), the command line's start, and k new videos."""
    num_videos = num_videos or (1000 if quick else NUM_VIDEOS)
    with tempfile.TemporaryDirectory(prefix="tsp-orchestration-") as folder:
        few, many = (_filled(Path(folder, str(count)), count) for count in (16, num_videos))
        env = _environment(Path(folder))
        _command(["run", str(few)], env)  # makes Prefect's database
        rounds = [
            (_command(["run", str(few)], env), _command(["run", str(many)], env))
            for _ in range(1 if quick else 2)
        ]
        alone, whole = (
            Seconds(*map(min, zip(*times, strict=True))) for times in zip(*rounds, strict=True)
        )
        rows = [
            measure.row(
                f"tsp run, nothing stale, {num_videos} videos done",
                whole.wall,
                baseline=alone.wall,
                unit="s",
                target=f"< {TARGET_SECONDS} s more than the baseline",
                notes=f"baseline: 16 videos; CPU time {whole.cpu:.1f} s against {alone.cpu:.1f} s; "
                "most of all is the start of Prefect",
            ),
            *_plan_rows(load_config(str(many)), num_videos),
            _incremental_row(many, num_videos),
        ]
    return [*rows, _help_row(env)]


def _plan_rows(config: Config, num_videos: int) -> list[Row]:
    """Seconds that each stage takes to find its artifact."""
    found: dict[str, ArtifactRef] = {}
    rows = []
    for stage in STAGE_NAMES:
        start, cpu = time.perf_counter(), time.process_time()
        plan = pipeline.plan_stage(config, stage, found)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert plan.existing is not None, f"{stage} is stale"
        found[stage] = plan.existing
        name, notes = f"plan {stage}, {num_videos} videos done", f"CPU time {cpu:.2f} s"
        rows.append(measure.row(name, seconds, unit="s", notes=notes))
    return rows


def _incremental_row(config_file: Path, num_videos: int) -> Row:
    """Seconds until export knows which of the videos are new, ten of them being new."""
    _add_videos(config_file.parent, range(num_videos, num_videos + 10))
    config = load_config(str(config_file))
    found: dict[str, ArtifactRef] = {}
    for stage in ("ingest", "annotate", "index", "gvf", "pretrain"):
        found[stage] = _done(config, stage, found)
    start = time.perf_counter()
    plan = pipeline.plan_stage(config, "export", found)
    seconds = time.perf_counter() - start
    assert plan.num_items - plan.num_items_done == 10
    name = f"plan export, 10 videos new, {num_videos} done"
    return measure.row(name, seconds, unit="s", notes=f"{len(plan.done)} shards")


def _help_row(env: Mapping[str, str]) -> Row:
    runs = [_command(["--help"], env) for _ in range(3)]
    wall, cpu = (float(np.median(times)) for times in zip(*runs, strict=True))
    target, notes = f"< {HELP_TARGET_SECONDS} s", f"CPU time {cpu:.2f} s"
    return measure.row("tsp --help", wall, unit="s", target=target, notes=notes)


def _environment(folder: Path) -> dict[str, str]:
    home = folder / "prefect"
    return {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": "", "NO_COLOR": "1"}


class Seconds(NamedTuple):
    """Wall time, and CPU time of the process and those that it waited for."""

    wall: float
    cpu: float


def _command(arguments: list[str], env: Mapping[str, str]) -> Seconds:
    """Time a `tsp` command."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _filled(folder: Path, num_videos: int) -> Path:
    """Make a dataset of so many videos and a root in which all stages are done."""
    folder.mkdir(parents=True)
    (folder / "videos").mkdir()
    _add_videos(folder, range(num_videos))
    config_file = folder / "config.yaml"
    config_file.write_text(_CONFIG.format(shard_size=16))
    config = load_config(str(config_file))
    found: dict[str, ArtifactRef] = {}
    for stage in STAGE_NAMES:
        found[stage] = _done(config, stage, found)
    return config_file


def _add_videos(folder: Path, numbers: range) -> None:
    """Files that stand for videos, and their annotations: an action of 60 s in each."""
    annotations = folder / "annotations.json"
    content = {"database": {}} if not annotations.exists() else json.loads(annotations.read_text())
    for number in numbers:
        name = f"v_{number:06d}"
        (folder / "videos" / f"{name}.mp4").write_bytes(name.encode())
        content["database"][name] = {
            "subset": "training" if number % 4 else "validation",
            "duration": 120.0,
            "annotations": [{"label": f"class {number % 3}", "segment": [20.0, 80.0]}],
        }
    annotations.write_text(json.dumps(content))


def _done(config: Config, stage: StageName, found: Mapping[str, ArtifactRef]) -> ArtifactRef:
    """Run a stage, its costly part made up."""
    inputs = pipeline.select_inputs(config, stage, found)
    module = pipeline.stage_module(stage)
    plan = module.plan(config, inputs)
    if plan.existing is not None:
        return plan.existing
    if stage in _MADE_UP_WHOLE:
        return _made_up(config, plan)
    run_shard = _RUN_SHARD.get(stage)
    for shard in plan.shards:
        assert run_shard is not None
        run_shard(config, inputs, shard)
    return module.finish(config, inputs, plan, progress=lambda _: None).artifact


_MADE_UP_WHOLE = ("pretrain", "evaluate")


def _made_up(config: Config, plan: Plan) -> ArtifactRef:
    """Publish an artifact of this recipe; nothing reads it as long as nothing is stale."""
    files = ("best.pth", "metrics.json", "report.html", "report.md")
    return artifacts.publish(config.root_uri, plan.recipe, dict.fromkeys(files, b"{}"))


def _probe_shard(_config: Config, _inputs: Mapping[str, ArtifactRef], shard: Shard) -> None:
    """What `ingest.run_shard` writes, without opening the files."""
    rows = [
        {"uri": uri, "token": token, "status": "ok", "code": None}
        | _template()
        | {"content_hash": _hash(uri)}
        for uri, token in map(json.loads, shard.videos)
    ]
    table = schemas.table_from_rows(rows, schemas.PROBES)
    schemas.write_table(shard.uri, table, schemas.PROBES)


def _gvf_shard(config: Config, inputs: Mapping[str, ArtifactRef], shard: Shard) -> None:
    def compute(row: Mapping[str, Any]) -> Computed:
        names = {"video": row["video"], "content_hash": row["content_hash"], "status": "ok"}
        result = {**names, "num_clips": 7, "gvf": _numbers(row["video"], 1)[0]}
        return Computed(table=schemas.table_from_rows([result], schema), num_clips=7)

    schema = schemas.gvf_schema(_FEATURE_SIZE)
    shards.run_videos(config, inputs, shard, schema, compute)


def _export_shard(config: Config, inputs: Mapping[str, ArtifactRef], shard: Shard) -> None:
    def compute(row: Mapping[str, Any]) -> Computed:
        starts = np.arange(7) * 16 / 15
        rows = FeatureRows(
            video=row["video"],
            content_hash=row["content_hash"],
            features=_numbers(row["video"], len(starts)),
            starts_seconds=starts,
            ends_seconds=starts + 16 / 15,
            is_padded=np.zeros(len(starts), dtype=np.bool_),
        )
        return Computed(table=table_from_features(rows), num_clips=len(starts))

    schema = schemas.features_schema(_FEATURE_SIZE)
    shards.run_videos(config, inputs, shard, schema, compute)


_RUN_SHARD: dict[str, Callable[[Config, Mapping[str, ArtifactRef], Shard], None]] = {
    "ingest": _probe_shard,
    "gvf": _gvf_shard,
    "export": _export_shard,
}


@functools.cache
def _template() -> dict[str, Any]:
    """What ingest finds out about one real video."""
    return probe(h264_video(120)).as_row()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _numbers(video: str, count: int) -> np.ndarray:
    seed = int(_hash(video)[:8], 16)
    return np.random.default_rng(seed).standard_normal((count, _FEATURE_SIZE), dtype=np.float32)


if __name__ == "__main__":
    _options = measure.arguments(__doc__, videos={"type": int, "default": None})
    measure.report(run(_options.quick, _options.videos), _options.json)

"""Runs one stage as the pipeline does, and tells what it computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tsp_core import storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.stages.base import Inputs, StageReport, no_progress


def run(stage: ModuleType, config: Config, inputs: Inputs) -> tuple[StageReport, list[str]]:
    """Plan, run all shards, finish; returns the report and the videos that were computed."""
    plan = stage.plan(config, inputs)
    for shard in plan.shards:
        report = stage.run_shard(config, inputs, shard)
        assert report.uri == shard.uri
    computed = [video for shard in plan.shards for video in shard.videos]
    return stage.finish(config, inputs, plan, progress=no_progress), computed


def contents(artifact: ArtifactRef) -> Mapping[str, bytes]:
    """All files of an artifact by name."""
    folder = storage.local_path(artifact.uri)
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

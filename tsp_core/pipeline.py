"""The chain of stages: what each takes from which, and how to run one or all without Prefect.

The flows run the same stages as Prefect tasks; this module is what they, `tsp status` and a
notebook share.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ArtifactError
from tsp_core.stages.base import (
    Inputs,
    Plan,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    reused,
)
from tsp_core.underway import noted

INPUTS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "annotate": ("ingest",),
    "index": ("ingest", "annotate"),
    "gvf": ("ingest", "index"),
    "pretrain": ("ingest", "annotate", "index", "gvf"),
    "export": ("ingest", "annotate", "pretrain"),
    "evaluate": ("ingest", "annotate", "index", "gvf", "pretrain", "export"),
}
"""The stages whose artifacts a stage reads."""


class Stage(Protocol):
    """The three functions of a stage module; see `tsp_core.stages.base`."""

    def plan(self, config: Config, inputs: Inputs) -> Plan:
        """Say what there is to do, without doing it."""
        ...

    def run_shard(self, config: Config, inputs: Inputs, shard: Shard) -> ShardReport:
        """Do one shard and store its result."""
        ...

    def finish(
        self, config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback
    ) -> StageReport:
        """Publish the artifact from the shards' results."""
        ...


ShardMap = Callable[[Config, Inputs, Sequence[Shard]], Iterable[ShardReport]]


def stage_module(name: str) -> Stage:
    """Import a stage's module on first use, so that the command line starts fast."""
    return cast(Stage, importlib.import_module(f"tsp_core.stages.{name}"))


def is_needed(config: Config, name: str) -> bool:
    """Tell whether this configuration uses a stage at all."""
    if name == "gvf":
        return config.gvf.pooling != "none" and config.pretrain.heads != "tac"
    if name == "pretrain":
        return config.export.checkpoint is None
    return True


def select_inputs(config: Config, name: str, artifacts: Inputs) -> dict[str, ArtifactRef]:
    """Pick a stage's inputs out of what is published.

    Raises:
        ArtifactError: One is missing; the message says which stage to run.
    """
    needed = [source for source in INPUTS[name] if is_needed(config, source)]
    for source in needed:
        if source not in artifacts:
            raise ArtifactError(
                f"{name}: the artifact of the stage {source!r} is not there or out of date; "
                f"run `tsp {source} CONFIG` first, or `tsp run CONFIG` for everything"
            )
    return {source: artifacts[source] for source in needed}


def plan_stage(config: Config, name: str, artifacts: Inputs) -> Plan:
    """Plan one stage from the artifacts that are published."""
    return stage_module(name).plan(config, select_inputs(config, name, artifacts))


def published(config: Config, upto: str | None = None) -> dict[str, ArtifactRef]:
    """Find the up-to-date artifacts of the stages before `upto` (all stages by default).

    The chain ends at the first stage that is not done: what follows cannot be up to date.
    """
    found: dict[str, ArtifactRef] = {}
    config = looking_up(config)
    for name in STAGE_NAMES:
        if name == upto:
            break
        needed = [source for source in INPUTS[name] if is_needed(config, source)]
        if not is_needed(config, name) or any(source not in found for source in needed):
            continue
        existing = plan_stage(config, name, found).existing
        if existing is not None:
            found[name] = existing
    return found


def looking_up(config: Config) -> Config:
    """The configuration for finding what is there: 'always' trains anew, it does not make stale."""
    if config.pretrain.retrain != "always":
        return config
    pretrain = config.pretrain.model_copy(update={"retrain": "on_change"})
    return config.model_copy(update={"pretrain": pretrain})


def run_stage(
    config: Config,
    name: str,
    artifacts: Inputs,
    *,
    map_shards: ShardMap | None = None,
    progress: ProgressCallback = no_progress,
) -> StageReport:
    """Run one stage in this process: plan, shards, finish; a published artifact is reused."""
    began = time.monotonic()
    inputs = select_inputs(config, name, artifacts)
    module = stage_module(name)
    plan = module.plan(config, inputs)
    if plan.existing is not None:
        return reused(plan)
    with noted(config, plan, artifacts):
        if map_shards is None:
            for shard in plan.shards:
                module.run_shard(config, inputs, shard)
        else:
            list(map_shards(config, inputs, plan.shards))
        report = module.finish(config, inputs, plan, progress=progress)
    return report.model_copy(update={"seconds": time.monotonic() - began})


def check_annotations(config: Config) -> None:
    """Read the annotations, in seconds: what is wrong with them must not wait for the videos.

    Raises:
        AnnotationError: As the stage annotate would raise it, after ingest.
        ConfigError: No annotations are configured.
    """
    stage: Any = stage_module("annotate")
    stage.read(config)


def run_all(
    config: Config,
    *,
    through: str = STAGE_NAMES[-1],
    progress: ProgressCallback = no_progress,
) -> dict[str, StageReport]:
    """Run the stages up to and including `through` in this process, in order."""
    reports: dict[str, StageReport] = {}
    if through != "ingest":
        check_annotations(config)
    for name in STAGE_NAMES:
        if is_needed(config, name):
            found = {done: report.artifact for done, report in reports.items()}
            reports[name] = run_stage(config, name, found, progress=progress)
        if name == through:
            break
    return reports

"""What a stage is: `plan`, `run_shard` for each shard, then `finish`.

A stage module has three public functions and imports no other stage::

    plan(config, inputs) -> Plan                    cheap: what is there, what is left to do
    run_shard(config, inputs, shard) -> ShardReport one batch of videos, retryable, idempotent
    finish(config, inputs, plan) -> StageReport     merges the shards, publishes the artifact

Stages that do not work per video have no shards and do their work in `finish`. The order of the
stages and what each takes from which is in `tsp_core.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef, Frozen, Recipe
from tsp_core.config import Config
from tsp_core.training.job import CurvePoint

Inputs = Mapping[str, ArtifactRef]
"""Published artifacts by the name of the stage that made them."""


class Shard(Frozen):
    """A batch of videos for one task, and the object that holds its result.

    Attributes:
        index: Position among the shards of this run.
        uri: Where the result goes; it names its content, so a retry writes the same.
        videos: Names of the videos (for ingest: JSON of URI and change token).
    """

    index: int
    uri: str
    videos: tuple[str, ...]


class Plan(Frozen):
    """What a stage is going to do.

    Attributes:
        recipe: What determines the stage's artifact.
        existing: The artifact, when it is published already; then nothing is left to do.
        usable: The artifact of an earlier run, up to date but for failures that may have passed,
            which this plan tries again; stages after this one can go on from it meanwhile.
        shards: Batches that are not done yet.
        done: Result objects of batches that were done by earlier runs.
        num_items: Items (videos) in all.
        num_items_done: Items whose result is there already.
        notes: What else there is to say of the plan, for people.
    """

    recipe: Recipe
    existing: ArtifactRef | None = None
    usable: ArtifactRef | None = None
    shards: tuple[Shard, ...] = ()
    done: tuple[str, ...] = ()
    num_items: int = 0
    num_items_done: int = 0
    notes: tuple[str, ...] = ()

    @property
    def current(self) -> ArtifactRef | None:
        """What is up to date for the stages after this one."""
        return self.existing or self.usable


class ShardReport(Frozen):
    """What came of a shard; small."""

    index: int
    uri: str
    num_ok: int
    num_quarantined: int
    num_clips: int = 0
    seconds: float = 0.0


class StageReport(Frozen):
    """What came of a stage; figures in `summary` are for people and for the Prefect UI.

    `seconds` is how long this run took to make the artifact; None when it was there already.
    """

    stage: str
    artifact: ArtifactRef
    reused: bool = False
    seconds: float | None = None
    summary: dict[str, Any] = Field(default_factory=dict)


class Progress(Frozen):
    """How far a long stage is: `done` of `total` `unit`s, and a line for people.

    Attributes:
        stage: Name of the stage.
        done: Units that are done.
        total: Units in all.
        unit: What is counted, in the plural.
        message: What else people want to know now.
        counts: Other things that are done so far, whose rates tell how fast it goes: clips.
        points: New points of the training curves.
    """

    stage: str
    done: float
    total: float
    unit: str
    message: str = ""
    counts: dict[str, float] = Field(default_factory=dict)
    points: tuple[CurvePoint, ...] = ()


ProgressCallback = Callable[[Progress], None]


def no_progress(progress: Progress) -> None:
    """Ignore progress."""


def planned(config: Config, recipe: Recipe, **fields: Any) -> Plan:
    """Build a plan, looking up whether the artifact is published already."""
    existing = artifacts.find(config.root_uri, recipe)
    return Plan(recipe=recipe, existing=existing, **fields)


def reused(plan: Plan) -> StageReport:
    """Report of a stage whose artifact is there already."""
    assert plan.existing is not None
    marker = artifacts.read_marker(plan.existing.uri)
    return StageReport(
        stage=plan.recipe.stage, artifact=plan.existing, reused=True, summary=marker.summary
    )

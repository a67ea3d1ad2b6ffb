"""Evaluate: how good the exported checkpoint's heads and features are, with a report.

Publishes `metrics.json`, `predictions.parquet` (`predictions_schema`), `detections.parquet`,
`report.html` (one page that needs nothing else), and `report.md` with its charts beside it. Heads
are evaluated when the export was made with a checkpoint that has them, features when they were
exported of a training subset and of the evaluated one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tsp_core import artifacts
from tsp_core.annotations.subsets import check_subset, videos_by_subset
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config, recipe_fields
from tsp_core.evaluation.sections.configuration import shown_configuration
from tsp_core.schemas import DETECTIONS, predictions_schema, read_table, write_table
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    planned,
)

if TYPE_CHECKING:
    from tsp_core.evaluation.assemble import Evaluation

VERSION = 5


def plan(config: Config, inputs: Inputs) -> Plan:
    """Look the artifact up; the report shows the configuration, so all of it counts."""
    recipe = Recipe(
        stage="evaluate",
        version=VERSION,
        config={"evaluate": recipe_fields(config.evaluate), "shown": shown_configuration(config)},
        inputs={name: artifact.digest for name, artifact in inputs.items()},
    )
    return planned(config, recipe)


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """There are no shards: one subset is evaluated as a whole."""
    raise AssertionError("the stage 'evaluate' has no shards")


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Predict, score, and publish the figures and the report.

    Raises:
        ConfigError: The annotations have no such subset.
        GvfError: A video of the subset has no global video feature.
        ArtifactError: An input is damaged.
    """
    _check_subsets(config, inputs["annotate"])
    from tsp_core.evaluation.assemble import evaluate  # imports torch, which planning does without

    def on_progress(unit: str, done: int, total: int) -> None:
        progress(Progress(stage="evaluate", done=done, total=total, unit=unit))

    evaluation = evaluate(config, inputs, on_progress)
    artifact = _publish(config.root_uri, plan.recipe, evaluation)
    return StageReport(stage="evaluate", artifact=artifact, summary=dict(evaluation.summary))


def _check_subsets(config: Config, annotate: ArtifactRef) -> None:
    """A name that is misspelt would give a report of nothing."""
    column = read_table(annotate.file("segments.parquet"), "segments", columns=["subset"])["subset"]
    known = {*videos_by_subset(annotate), *map(str, column.unique().to_pylist())}
    check_subset("evaluate.subset", config.evaluate.subset, known)
    if config.evaluate.train_subset is not None:
        check_subset("evaluate.train_subset", config.evaluate.train_subset, known)


def _publish(root: str, recipe: Recipe, evaluation: Evaluation) -> ArtifactRef:
    from tsp_core.evaluation.report import render_chart, render_html, render_markdown

    num_classes = evaluation.predictions.schema.field("action_logits").type.list_size
    with tempfile.TemporaryDirectory(prefix="tsp-evaluate-") as folder:
        tables = {
            Path(folder, "predictions.parquet"): (
                evaluation.predictions,
                predictions_schema(num_classes),
            ),
            Path(folder, "detections.parquet"): (evaluation.detections, DETECTIONS),
        }
        for path, (table, schema) in tables.items():
            write_table(str(path), table, schema)
        files: dict[str, Path | bytes] = {
            **{path.name: path for path in tables},
            "metrics.json": json.dumps(evaluation.metrics, indent=1, allow_nan=False).encode(),
            "report.html": render_html(evaluation.report).encode(),
            "report.md": render_markdown(evaluation.report).encode(),
            **{chart.file: render_chart(chart) for chart in evaluation.report.charts},
        }
        return artifacts.publish(root, recipe, files, summary=evaluation.summary)

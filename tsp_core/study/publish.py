"""Compares the runs of a study and publishes tables and report as `ROOT/study/FINGERPRINT/`.

The artifact holds `report.html` (one page that needs nothing else), `report.md` with its charts,
`table.md`, `table.csv` (mean, standard deviation, difference to the baseline of every figure),
`runs.csv` (every figure of every run) and `results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config
from tsp_core.evaluation.sections.configuration import shown_configuration
from tsp_core.study.results import Artifacts, StudyResult, gather, read_initial, read_run
from tsp_core.study.runs import StudyRun

STAGE = "study"
VERSION = 2


def compare(
    config: Config,
    runs: Sequence[StudyRun],
    published: Sequence[Artifacts],
    *,
    initial: Artifacts | None = None,
) -> ArtifactRef:
    """Compare what the runs published; the comparison that is there already is reused.

    Args:
        config: Of the study.
        runs: All runs.
        published: The artifacts of each run by stage, in the same order.
        initial: Artifacts of the initial run; None when there was none.

    Raises:
        ArtifactError: A run's metrics are of a version that this release cannot read.
    """
    recipe = _recipe(config, runs, published, initial)
    existing = artifacts.find(config.root_uri, recipe)
    if existing is not None:
        return existing
    results = [read_run(run, found) for run, found in zip(runs, published, strict=True)]
    started = None if initial is None else read_initial(initial)
    result = gather(config, runs, results, initial=started)
    return artifacts.publish(config.root_uri, recipe, _files(result), summary=summary(result))


def summary(result: StudyResult) -> dict[str, Any]:
    """Headline figures for people: means by variant."""
    keys = ("map", "region_auc")
    return {
        f"{key} {variant.name}": variant.spreads[key].mean
        for key in keys
        for variant in result.variants
        if key in variant.spreads
    }


def _recipe(
    config: Config,
    runs: Sequence[StudyRun],
    published: Sequence[Artifacts],
    initial: Artifacts | None,
) -> Recipe:
    inputs = {
        f"{run.variant}-{run.seed}/{stage}": found[stage].digest
        for run, found in zip(runs, published, strict=True)
        for stage in ("pretrain", "evaluate")
        if stage in found
    }
    if initial is not None:
        inputs["initial"] = initial["pretrain"].digest
    shown = shown_configuration(config)
    return Recipe(stage=STAGE, version=VERSION, config={"shown": shown}, inputs=inputs)


def _files(result: StudyResult) -> Mapping[str, Path | bytes]:
    from tsp_core.evaluation.report import render_chart, render_html, render_markdown
    from tsp_core.study import files
    from tsp_core.study.report import study_report

    report = study_report(result)
    texts = {
        "table.md": files.table_markdown(result),
        "table.csv": files.table_csv(result),
        "runs.csv": files.runs_csv(result),
        "results.json": files.results_json(result),
        "report.html": render_html(report),
        "report.md": render_markdown(report),
    }
    charts = {chart.file: render_chart(chart) for chart in report.charts}
    return {**{name: text.encode() for name, text in texts.items()}, **charts}

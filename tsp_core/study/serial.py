"""A whole study in this process, without Prefect: for notebooks and tests."""

from __future__ import annotations

from tsp_core import pipeline
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.stages.base import ProgressCallback, no_progress
from tsp_core.study.publish import compare
from tsp_core.study.runs import StudyRun, initial_run, variant_runs


def run_study(config: Config, *, progress: ProgressCallback = no_progress) -> ArtifactRef:
    """Run every variant with every seed, and compare them; what is published is reused.

    Raises:
        TspError: The first error of a stage; what follows it does not run.
    """
    first = initial_run(config)
    initial = None if first is None else _artifacts(first, "pretrain", progress)
    weights = None if initial is None else initial["pretrain"].file("best.pth")
    runs = variant_runs(config, initial_weights=weights)
    published = [_artifacts(run, "evaluate", progress) for run in runs]
    return compare(config, runs, published, initial=initial)


def _artifacts(run: StudyRun, through: str, progress: ProgressCallback) -> dict[str, ArtifactRef]:
    reports = pipeline.run_all(run.config, through=through, progress=progress)
    return {stage: report.artifact for stage, report in reports.items()}

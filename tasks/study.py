"""The comparison of a study's runs as a Prefect task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.policy import stage_task
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.study import publish
from tsp_core.study.runs import StudyRun


def compare_runs(
    config: Config,
    runs: Sequence[StudyRun],
    published: Sequence[Mapping[str, ArtifactRef]],
    *,
    initial: Mapping[str, ArtifactRef] | None,
) -> ArtifactRef:
    """Compare the runs inside a flow; see `tsp_core.study.publish.compare`."""
    task = stage_task(publish.STAGE, "finish", publish.compare, run_name="study comparison")
    return task(config, runs, published, initial=initial)

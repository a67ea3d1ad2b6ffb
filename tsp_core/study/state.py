"""How far a study is: `tsp status` and `tsp run --dry-run` of a configuration with variants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.status import StageStatus, State, status
from tsp_core.study.runs import StudyRun, initial_run, variant_runs


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State of one run of a study.

    Attributes:
        label: What people call the run.
        state: "done", or the state of the first stage that is not.
        reason: Which stage that is and why; empty when the run is done.
        artifact: Of its last stage, when it is done.
    """

    label: str
    state: State
    reason: str
    artifact: ArtifactRef | None


def study_status(config: Config) -> list[RunStatus]:
    """Compare what is published with what each run of the study asks for."""
    return list(_statuses(config))


def _statuses(config: Config) -> Iterator[RunStatus]:
    first = initial_run(config)
    weights = None
    if first is not None:
        found = _run_status(first, through="pretrain")
        yield found
        # Without it, what the variants read is not known either.
        weights = "" if found.artifact is None else found.artifact.file("best.pth")
    for run in variant_runs(config, initial_weights=weights):
        if weights == "":
            reason = "follows the initial training"
            yield RunStatus(label=run.label, state="missing", reason=reason, artifact=None)
        else:
            yield _run_status(run, through=STAGE_NAMES[-1])


def _run_status(run: StudyRun, *, through: str) -> RunStatus:
    wanted = STAGE_NAMES[: STAGE_NAMES.index(through) + 1]
    stages = [entry for entry in status(run.config) if entry.stage in wanted]
    open_ones = [entry for entry in stages if entry.state not in ("done", "not used")]
    if open_ones:
        return _open(run, open_ones[0])
    return RunStatus(label=run.label, state="done", reason="", artifact=stages[-1].artifact)


def _open(run: StudyRun, entry: StageStatus) -> RunStatus:
    reason = f"{entry.stage}: {entry.reason}"
    return RunStatus(label=run.label, state=entry.state, reason=reason, artifact=None)

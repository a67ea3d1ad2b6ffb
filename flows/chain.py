"""A chain of stages inside a flow: each runs when it is used and wanted, and shows what it made."""

from __future__ import annotations

import datetime
from pathlib import PurePosixPath

from prefect import runtime

from flows import parameters
from tasks.artifacts import artifact_key, show_report, show_stage
from tasks.logs import forward_logs
from tasks.stages import run_stage
from tsp_core import pipeline
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config, StageName
from tsp_core.errors import TspError
from tsp_core.runs import update_record
from tsp_core.stages.base import StageReport


class Chain:
    """Runs stages one after the other and keeps what they published.

    Args:
        config: The configuration.
        through: The last stage that is wanted; `run` skips those after it.
        published: Artifacts of earlier stages that are there already.
    """

    def __init__(
        self,
        config: Config,
        *,
        through: StageName = "evaluate",
        published: dict[str, ArtifactRef] | None = None,
    ) -> None:
        forward_logs()
        self._config = config
        self._wanted = STAGE_NAMES[: STAGE_NAMES.index(through) + 1]
        self._artifacts = dict(published or {})
        self._reports: dict[str, StageReport] = {}
        self._key_prefix = artifact_key(config.name)

    def run(self, stage: StageName) -> None:
        """Run a stage, unless the configuration does not use it or it is not wanted."""
        if stage not in self._wanted or not pipeline.is_needed(self._config, stage):
            return
        report = run_stage(self._config, stage, self._artifacts, key_prefix=self._key_prefix)
        self._reports[stage] = report
        self._artifacts[stage] = report.artifact
        update_record(self._config, {stage: report.artifact})
        show_stage(report, key_prefix=self._key_prefix)

    def finish(self) -> dict[str, StageReport]:
        """Record what is current, and return the reports of the stages that were run."""
        update_record(self._config, self._artifacts)
        return dict(self._reports)

    def show_report(self) -> None:
        """Show the run's report in the UI, with its pictures and links."""
        show_report(self._reports, key_prefix=self._key_prefix)


def dated_name() -> str:
    """Name of the present flow run: the dataset's name and the time it began."""
    given = dict(runtime.flow_run.parameters)
    given.pop("through", None)
    try:
        name = parameters.load(**given).name
    except TspError:  # the flow itself is going to say what is wrong
        name = PurePosixPath(str(given.get("config", "tsp"))).stem
    return f"{name} {datetime.datetime.now():%Y-%m-%d %H:%M}"

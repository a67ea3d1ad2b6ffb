"""A chain of stages inside a flow: each runs when it is used and wanted, and shows what it made."""

from __future__ import annotations

import datetime
import logging
from pathlib import PurePosixPath

from prefect import runtime

from flows import parameters
from tasks.artifacts import show_report, show_stage
from tasks.curves import LiveCurves
from tasks.flow_runs import tag_run, where_to_watch
from tasks.logs import forward_logs
from tasks.overview import RunOverview
from tasks.progress import observed_by
from tasks.stages import run_stage
from tasks.tables import summary_line
from tsp_core import pipeline
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config, StageName
from tsp_core.errors import TspError
from tsp_core.runs import seconds_of, update_record
from tsp_core.stages.base import StageReport
from tsp_core.status import left_out

_logger = logging.getLogger(__name__)


class Chain:
    """Runs stages one after the other and keeps what they published; make it inside a flow run.

    Args:
        config: The configuration.
        stages: The stages that are wanted, in order; `run` skips the others.
        published: Artifacts of earlier stages that are there already.
    """

    def __init__(
        self,
        config: Config,
        *,
        stages: tuple[StageName, ...] = STAGE_NAMES,
        published: dict[str, ArtifactRef] | None = None,
    ) -> None:
        forward_logs()
        tag_run(config.key)
        self._config = config
        self._wanted = stages
        self._artifacts = dict(published or {})
        self._reports: dict[str, StageReport] = {}
        self._overview = RunOverview(config, stages)
        where_to_watch(self._overview.address)
        self._curves = LiveCurves(f"{config.key}-pretrain-curves", on_shown=self._overview.link)

    def run(self, stage: StageName) -> None:
        """Run a stage, unless the configuration does not use it or it is not wanted."""
        if stage not in self._wanted or not pipeline.is_needed(self._config, stage):
            return
        if stage == self._wanted[0]:
            self._check_beginning()
        self._overview.begin(stage)
        try:
            with observed_by(self._overview.progress), observed_by(self._curves.progress):
                report = run_stage(
                    self._config, stage, self._artifacts, key_prefix=self._config.key
                )
        except BaseException as error:
            self._overview.fail(stage, error)
            raise
        self._reports[stage] = report
        self._artifacts[stage] = report.artifact
        update_record(self._config, {stage: report.artifact}, seconds=seconds_of([report]))
        show_stage(report, key_prefix=self._config.key, on_shown=self._overview.link)
        self._overview.end(report, summary_line(report.summary))

    def _check_beginning(self) -> None:
        for stage, check in pipeline.beginning_checks(self._config, self._wanted):
            try:
                check()
            except BaseException as error:
                self._overview.begin(stage)
                self._overview.fail(stage, error)
                raise

    def tell_left_out(self) -> None:
        """Say in one line per stage what was left out, and where it is listed."""
        try:
            lines = left_out(self._artifacts)
        except TspError as error:  # the run is done all the same
            lines = [f"what was left out cannot be told: {error}"]
        for line in lines:
            _logger.warning("%s", line)

    def finish(self) -> dict[str, StageReport]:
        """Record what is current, and return the reports of the stages that were run."""
        seconds = seconds_of(self._reports.values())
        update_record(self._config, self._artifacts, seconds=seconds)
        return dict(self._reports)

    def show_report(self) -> None:
        """Show the run's report in the UI, with its pictures and links."""
        show_report(self._reports, key_prefix=self._config.key, on_shown=self._overview.link)
        self._overview.close()


def dated_name() -> str:
    """Name of the present flow run: the dataset's name and the time it began."""
    given = dict(runtime.flow_run.parameters)
    given.pop("through", None)
    try:
        name = parameters.load(**given).name
    except TspError:  # the flow itself is going to say what is wrong
        name = PurePosixPath(str(given.get("config", "tsp"))).stem
    return f"{name} {datetime.datetime.now():%Y-%m-%d %H:%M}"

"""Every stage as Prefect tasks: a plan, its shards side by side, a finish.

All stages have the same three functions, so one module makes the tasks of all
(docs/decisions/0004-one-module-of-tasks.md). Task runs are named `gvf shard 3/12`.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from prefect import Task
from prefect.exceptions import TerminationSignal
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks import cluster
from tasks.policy import stage_task
from tasks.progress import ProgressReporter
from tasks.restarts import through_restarts
from tasks.workers import num_workers
from tsp_core import pipeline, storage
from tsp_core.config import Config
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    Shard,
    ShardReport,
    StageReport,
    reused,
)
from tsp_core.underway import noted

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageTasks:
    """The three tasks of one stage."""

    plan: Task[..., Plan]
    shard: Task[..., ShardReport]
    finish: Task[..., StageReport]


@functools.cache
def stage_tasks(stage: str) -> StageTasks:
    """Make the tasks of a stage; its module is imported when they run."""

    def plan(config: Config, inputs: Inputs) -> Plan:
        return pipeline.stage_module(stage).plan(config, inputs)

    def run_shard(
        config: Config,
        inputs: Inputs,
        shard: Shard,
        number: int,  # noqa: ARG001 - number and total are for the name of the run
        total: int,  # noqa: ARG001
    ) -> ShardReport:
        if config.runtime.runner == "ray":
            cluster.prepare_worker(config)
        return pipeline.stage_module(stage).run_shard(config, inputs, shard)

    def finish(config: Config, inputs: Inputs, plan: Plan, artifact_key: str) -> StageReport:
        progress = ProgressReporter(artifact_key, show_short_work=False)
        return pipeline.stage_module(stage).finish(config, inputs, plan, progress=progress)

    return StageTasks(
        plan=stage_task(stage, "plan", plan, run_name=f"{stage} plan"),
        shard=stage_task(stage, "shard", run_shard, run_name=f"{stage} shard {{number}}/{{total}}"),
        finish=stage_task(stage, "finish", finish, run_name=stage),
    )


def run_stage(config: Config, stage: str, artifacts: Inputs, *, key_prefix: str) -> StageReport:
    """Run one stage inside a flow; a published artifact is reused.

    Args:
        config: The configuration.
        stage: Name of the stage.
        artifacts: What the stages before it published.
        key_prefix: Start of the keys of the stage's Prefect artifacts.

    Raises:
        TspError: As the stage raises it; shards that have not begun are then cancelled.
    """
    return through_restarts(lambda: _run_stage(config, stage, artifacts, key_prefix=key_prefix))


def _run_stage(config: Config, stage: str, artifacts: Inputs, *, key_prefix: str) -> StageReport:
    began = time.monotonic()
    storage.use_endpoint(config.runtime.endpoint_url)
    inputs = pipeline.select_inputs(config, stage, artifacts)
    tasks = stage_tasks(stage)
    plan = tasks.plan(config, inputs)
    if plan.existing is not None:
        _logger.info("%s: up to date, reused %s", stage, plan.existing.uri)
        return reused(plan)
    with noted(config, plan, artifacts):
        if plan.shards:
            report = ProgressReporter(f"{key_prefix}-{stage}-progress")
            _run_shards(config, stage, inputs, plan, report)
        finished = tasks.finish(config, inputs, plan, artifact_key=f"{key_prefix}-{stage}-work")
    seconds = time.monotonic() - began
    _logger.info("%s: done in %.1f s", stage, seconds)
    return finished.model_copy(update={"seconds": seconds})


def _run_shards(
    config: Config, stage: str, inputs: Inputs, plan: Plan, report: ProgressReporter
) -> None:
    total = len(plan.shards)
    tally = _Tally(stage, plan)
    report(tally.progress())
    with shard_runner(config, stage) as runner:
        futures = [
            runner.submit(
                stage_tasks(stage).shard,
                {"config": config, "inputs": inputs, "shard": shard, "number": n, "total": total},
            )
            for n, shard in enumerate(plan.shards, start=1)
        ]
        # Leaving the context on an error cancels the shards that have not begun.
        for future in as_completed(futures):
            tally.add(future.result())
            report(tally.progress())


class _Tally:
    """Counts what the shards of a stage have done so far."""

    def __init__(self, stage: str, plan: Plan) -> None:
        self._stage = stage
        self._total = plan.num_items
        self._done = plan.num_items_done
        self._num_quarantined = 0
        self._num_clips = 0
        self._num_shards = 0
        self._all_shards = len(plan.shards)

    def add(self, report: ShardReport) -> None:
        self._done += report.num_ok + report.num_quarantined
        self._num_quarantined += report.num_quarantined
        self._num_clips += report.num_clips
        self._num_shards += 1

    def progress(self) -> Progress:
        message = f"{self._num_shards} of {self._all_shards} shards"
        if self._num_quarantined:
            message += f", {self._num_quarantined} quarantined"
        return Progress(
            stage=self._stage,
            done=self._done,
            total=self._total,
            unit="videos",
            message=message,
            counts={"clips": self._num_clips},
        )


class _Threads(ThreadPoolTaskRunner[Any]):
    """Threads that nobody waits for who is to end: what runs in them ends with the process."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_to_end = isinstance(exc_value, KeyboardInterrupt | TerminationSignal)
        if is_to_end and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        super().__exit__(exc_type, exc_value, traceback)


@contextmanager
def shard_runner(config: Config, stage: str) -> Iterator[TaskRunner[Any]]:
    """Open the runner of a stage's shards: threads here, or tasks on a Ray cluster.

    Raises:
        ConfigError: `runtime.runner` is 'ray' and something that it needs is not there.
        WorkerLostError: A node of the cluster was lost too often.
    """
    if config.runtime.runner == "threads":
        threads: TaskRunner[Any] = _Threads(max_workers=num_workers(config, stage))
        with threads:
            yield threads
    else:
        with cluster.ray_runner(config, stage) as runner:
            yield runner

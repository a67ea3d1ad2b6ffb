"""How tasks are run: which errors are retried and when, how long one may take, how it is tagged.

Only `TransientError`s are retried (`tsp_core.errors` draws the tree): bad input fails at once, and
its message becomes the state message of the run. Prefect's cache is off and no result is
persisted, since what is done is known from the published artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from tsp_core.errors import is_transient

R = TypeVar("R")
Step = Literal["plan", "shard", "finish"]

RETRY_DELAYS_SECONDS = (2.0, 8.0, 32.0, 128.0)
"""Exponential: short enough for a reset connection, long enough for a store that slows us down."""

JITTER = 0.5
"""Spreads the delays, so that shards that failed together do not come back together."""

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
TIMEOUTS_SECONDS: dict[tuple[str, Step], float] = {
    ("ingest", "shard"): 7 * _DAY,
    ("gvf", "shard"): 7 * _DAY,
    ("export", "shard"): 7 * _DAY,
    ("pretrain", "finish"): 14 * _DAY,
    ("evaluate", "finish"): _DAY,
}
"""Bounds for what hangs, far above what any healthy run needs.

A shard may be of dozens of videos of many hours. Decoders that hang are ended long before, by the
limits of `runtime.decoder_*`.
"""
DEFAULT_TIMEOUT_SECONDS = 2 * _HOUR


def retry_on_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001
    """Tell Prefect whether another attempt can help."""
    return isinstance(state.data, BaseException) and is_transient(state.data)


def stage_task(
    stage: str,
    step: Step,
    function: Callable[..., R],
    *,
    run_name: str,
    retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
) -> Task[..., R]:
    """Make a task of one step of a stage.

    Args:
        stage: Name of the stage.
        step: Which of its three functions.
        function: What to run.
        run_name: Template of the task runs' names; `{parameter}`s are filled in.
        retry_delays_seconds: Waiting time before each further attempt.
    """
    return task(
        name=f"{stage}-{step}",
        task_run_name=run_name,
        tags={"tsp", stage},
        retries=len(retry_delays_seconds),
        retry_delay_seconds=list(retry_delays_seconds),
        retry_jitter_factor=JITTER,
        retry_condition_fn=retry_on_transient,
        timeout_seconds=TIMEOUTS_SECONDS.get((stage, step), DEFAULT_TIMEOUT_SECONDS),
        cache_policy=NO_CACHE,
        persist_result=False,
    )(function)

"""Transient errors are retried, permanent ones fail at once with their message."""

from __future__ import annotations

import itertools

import pytest
from prefect import flow
from prefect.client.schemas.objects import State

from tasks.policy import RETRY_DELAYS_SECONDS, TIMEOUTS_SECONDS, stage_task
from tsp_core.config import STAGE_NAMES
from tsp_core.errors import (
    ArtifactError,
    ConfigError,
    StorageUnavailableError,
    WorkerLostError,
)

pytestmark = [
    pytest.mark.server,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore"),  # Prefect's own
]


class Failing:
    """Fails with the given errors, one per call, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def run(function: Failing) -> State[str]:
    def call() -> str:
        return function()

    work = stage_task("gvf", "shard", call, run_name="gvf", retry_delays_seconds=(0.01, 0.02))

    @flow
    def chain() -> str:
        return work()

    return chain(return_state=True)


@pytest.mark.parametrize("error", [StorageUnavailableError("reset"), WorkerLostError("killed")])
def test_transient_errors_are_retried(error: Exception) -> None:
    function = Failing(error, error)
    assert run(function).is_completed()
    assert function.calls == 3


def test_retries_end() -> None:
    function = Failing(*[StorageUnavailableError("still down")] * 5)
    state = run(function)
    assert state.is_failed()
    assert function.calls == 3
    assert "still down" in (state.message or "")


@pytest.mark.parametrize(
    "error", [ConfigError("root: missing"), ArtifactError("damaged"), RuntimeError("a bug")]
)
def test_other_errors_fail_at_once_with_their_message(error: Exception) -> None:
    function = Failing(error)
    state = run(function)
    assert state.is_failed()
    assert function.calls == 1
    assert str(error) in (state.message or "")


def test_delays_grow_and_every_step_has_a_timeout() -> None:
    ratios = [b / a for a, b in itertools.pairwise(RETRY_DELAYS_SECONDS)]
    assert all(ratio >= 2 for ratio in ratios)
    for stage in STAGE_NAMES:
        for step in ("plan", "shard", "finish"):
            made = stage_task(stage, step, lambda: None, run_name=stage)
            assert made.timeout_seconds == TIMEOUTS_SECONDS.get((stage, step), 7200)
            assert made.tags == {"tsp", stage}
            assert made.retry_jitter_factor

"""How a training process ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.training.tiny import make_job
from tsp_core.errors import TrainingError
from tsp_core.training import distributed, failures, loop
from tsp_core.training.job import TrainingJob
from tsp_core.training.main import main


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ends a training process, as it is called."""
    called: list[str] = []

    def end(status: int) -> NoReturn:
        called.append(f"exit {status}")
        raise Ended

    monkeypatch.setattr("tsp_core.training.main.die_with_parent", lambda: None)
    monkeypatch.setattr(distributed, "leave_world", lambda: called.append("leave"))
    monkeypatch.setattr(os, "_exit", end)
    return called


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TrainingJob:
    """A job whose training ends by an error."""

    def fail(trainer: loop.Trainer) -> NoReturn:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(loop.Trainer, "run", fail)
    return make_job(tmp_path)


def run(job: TrainingJob) -> int:
    path = Path(job.folder) / "job.json"
    path.write_text(job.model_dump_json())
    return main(str(path))


def test_an_error_is_recorded_before_the_others_are_left(
    failing: TrainingJob, calls: list[str]
) -> None:
    assert run(failing) == 1
    assert calls == ["leave"]
    assert [failure.message for failure in failures.recorded(failing)] == ["the loss is not finite"]


def test_on_gpus_a_process_ends_at_once_after_an_error(
    failing: TrainingJob, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL may wait for the others when the process group is taken down, and they for this one."""
    monkeypatch.setattr(distributed, "uses_nccl", lambda: True)
    with pytest.raises(Ended):
        run(failing)
    assert calls == ["exit 1"]
    assert len(failures.recorded(failing)) == 1


def test_a_training_that_is_done_leaves_the_others(calls: list[str], tmp_path: Path) -> None:
    assert run(make_job(tmp_path, epochs=1)) == 0
    assert calls == ["leave"]

"""Training in processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import make_job, make_trainer
from tsp_core.errors import TrainingError, WeightsError, WorkerLostError
from tsp_core.model.checkpoint import load_checkpoint
from tsp_core.training import failures
from tsp_core.training.job import (
    BEST_FILE,
    JOB_FILE,
    MetricRow,
    TrainingFailure,
    TrainingJob,
    TrainingUpdate,
    write_json,
)
from tsp_core.training.launch import _error, launch
from tsp_core.training.main import _failure

REPOSITORY = Path(__file__).resolve().parents[2]


def ignore(update: TrainingUpdate) -> None:
    pass


def saved_state(job: TrainingJob) -> dict[str, Any]:
    return torch.load(job.state_uri, weights_only=True)


def processes_of(job: TrainingJob, program: str) -> list[int]:
    """Process ids whose command line names the job and the program."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if str(job.path(JOB_FILE)) in words and program in words:
            found.append(int(path.parent.name))
    return found


def trainers_of(job: TrainingJob) -> list[int]:
    everything = processes_of(job, "tsp_core.training.main")
    return sorted(set(everything) - set(processes_of(job, "torch.distributed.run")))


def wait_until_gone(job: TrainingJob) -> bool:
    deadline = time.monotonic() + 120
    while processes_of(job, "tsp_core.training.main") and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(job, "tsp_core.training.main")


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_joined_batch(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "batch_norm": "frozen",
        "epochs": 1,
        "layers_lr": 1e-3,
        "heads_lr": 1e-2,
        "warmup_epochs": 0.0,
    }
    two = make_job(tmp_path / "two", processes=2, batch_size=2, **settings)
    result = launch(two, ignore)
    doubled = {**settings, "layers_lr": 2e-3, "heads_lr": 2e-2}  # learning rates x processes
    one = make_job(tmp_path / "one", batch_size=4, **doubled)
    alone = make_trainer(one)
    position = alone.run()
    found, expected = saved_state(two), saved_state(one)
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, atol=1e-6, rtol=1e-5, msg=name)
    for key, state in expected["optimizer"]["state"].items():  # the averaged gradients, summed up
        torch.testing.assert_close(
            found["optimizer"]["state"][key]["momentum_buffer"],
            state["momentum_buffer"],
            atol=1e-6,
            rtol=1e-4,
        )
    assert [row[:4] for row in result.rows] == [row[:4] for row in position.rows]
    for row, other in zip(result.rows, position.rows, strict=True):
        assert row.value == pytest.approx(other.value, rel=1e-4), row
    foregrounds = [row.value for row in result.rows if row.name == "num_clips"]
    assert foregrounds == [12.0, 6.0]  # every clip once, in training and in validation


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_survives_every_kind_of_end(tmp_path: Path) -> None:
    """Killed with its parent, killed by itself, cancelled; then it ends as if nothing happened."""
    job = make_job(tmp_path / "killed", checkpoint_minutes=1e-9, batch_size=2)

    kill_parent_when_training(job)
    assert wait_until_gone(job)
    first = saved_state(job)["position"]["iteration"]
    assert 0 < first < 12

    def kill_trainer(update: TrainingUpdate) -> None:
        for pid in trainers_of(job):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerLostError, match="a process was killed"):
        launch(job, kill_trainer)
    assert wait_until_gone(job)

    def cancel(update: TrainingUpdate) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(job, cancel)
    assert wait_until_gone(job)
    assert saved_state(job)["position"]["iteration"] >= first

    result = launch(job, ignore)
    whole = make_trainer(make_job(tmp_path / "whole", batch_size=2))
    position = whole.run()
    assert list(result.rows) == position.rows
    assert isinstance(result.rows[0], MetricRow)
    best = load_checkpoint(str(job.path(BEST_FILE)))
    assert best.info.epoch == result.best_epoch == position.best_epoch
    for name, value in best.model.state_dict().items():
        assert torch.equal(value, position.best_model[name]), name


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_three_processes_end_with_the_same_digits_too(tmp_path: Path) -> None:
    """The order in which three gradients are added up must not depend on what was before."""
    options: dict[str, Any] = {"checkpoint_minutes": 1e-9, "batch_size": 1, "epochs": 1}
    options["processes"] = 3
    job = make_job(tmp_path / "killed", **options)
    killed: list[int] = []

    def kill_a_trainer(update: TrainingUpdate) -> None:
        if not killed:
            killed.append(trainers_of(job)[-1])
            os.kill(killed[0], signal.SIGKILL)

    with contextlib.suppress(WorkerLostError):  # over a video, training goes on by itself
        launch(job, kill_a_trainer)
    assert len(killed) == 1
    launch(job, ignore)
    whole = make_job(tmp_path / "whole", **options)
    launch(whole, ignore)
    found, expected = saved_state(job), saved_state(whole)
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_several_processes_die_with_their_parent_too(tmp_path: Path) -> None:
    job = make_job(tmp_path, checkpoint_minutes=1e-9, batch_size=1, processes=2)
    kill_parent_when_training(job)
    assert wait_until_gone(job)
    assert 0 < saved_state(job)["position"]["iteration"] < 12


def test_numbers_of_another_launcher_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    result = launch(make_job(tmp_path, epochs=1), ignore)
    assert {row.epoch for row in result.rows} == {0}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_loader_process_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    """Idle, it is told and a retry goes on; while it decodes, training goes on by itself."""
    job = make_job(tmp_path / "killed", checkpoint_minutes=1e-9, batch_size=2, epochs=1)
    job = job.model_copy(update={"num_workers": 1})
    killed: list[int] = []

    def kill_loader(update: TrainingUpdate) -> None:
        for pid in [] if killed else loaders_of(job):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    try:
        result = launch(job, kill_loader)
    except WorkerLostError:
        result = launch(job, ignore)
    assert len(killed) == 1
    whole = make_trainer(make_job(tmp_path / "whole", batch_size=2, epochs=1))
    assert list(result.rows) == whole.run().rows
    assert result.quarantined == ()


def loaders_of(job: TrainingJob) -> list[int]:
    """Children of the trainers that multiprocessing started to read clips."""
    files = [
        path
        for trainer in trainers_of(job)
        for path in Path(f"/proc/{trainer}/task").glob("*/children")
    ]
    children = [int(pid) for path in files for pid in path.read_text().split()]
    return [pid for pid in children if b"--multiprocessing-fork" in command_of(pid)]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def kill_parent_when_training(job: TrainingJob) -> None:
    """Launch from another process and kill that, once a step was saved."""
    write_json(job.path("parent.json"), job)
    program = (
        "import sys; from pathlib import Path; from tsp_core.training import job, launch;"
        "text = Path(sys.argv[1]).read_text();"
        "launch.launch(job.TrainingJob.model_validate_json(text), lambda update: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(job.path("parent.json"))])
    deadline = time.monotonic() + 240
    while not Path(job.state_uri).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.kill()
    parent.wait()


@pytest.mark.slow
def test_the_error_of_a_training_process_is_raised_again(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    missing = str(tmp_path / "missing.pth")
    job = job.model_copy(update={"encoder": job.encoder.model_copy(update={"weights": missing})})
    with pytest.raises(WeightsError, match=r"missing\.pth") as caught:
        launch(job, ignore)
    assert "Traceback" in caught.value.__notes__[0]


def test_a_process_s_own_error_goes_before_a_lost_connection(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert isinstance(_error(failures.recorded(job), 1, "tail"), WorkerLostError)
    lost = TrainingFailure(type="WorkerLostError", message="another training process was lost")
    failures.record(job, lost, rank="0")
    assert isinstance(_error(failures.recorded(job), 1, "tail"), WorkerLostError)
    own = TrainingFailure(type="TrainingError", message="the loss is not finite")
    failures.record(job, own, rank="1")
    error = _error(failures.recorded(job), 1, "tail")
    assert isinstance(error, TrainingError)
    assert str(error) == "the loss is not finite"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (WeightsError("no such file"), "WeightsError", "no such file"),
        (torch.OutOfMemoryError("40 GB"), "TrainingError", "lower pretrain.batch_size"),
        (RuntimeError("CUDA error: out of memory"), "TrainingError", "lower pretrain.batch_size"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "TrainingError", "lower pretrain.batch_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed"), "WorkerLostError", "was lost"),
        (RuntimeError("Caught OSError in DataLoader worker process 0"), "TrainingError", "OSError"),
        (RuntimeError("[gloo/pair.cc] Connection closed by peer"), "WorkerLostError", "was lost"),
        (ZeroDivisionError("division"), "TrainingError", "unexpected ZeroDivisionError: division"),
    ],
)
def test_errors_are_sorted_into_the_project_s_own(
    error: Exception, kind: str, message: str
) -> None:
    failure = _failure(error)
    assert failure.type == kind
    assert message in failure.message

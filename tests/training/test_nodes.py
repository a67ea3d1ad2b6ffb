"""Training on several machines: two agents on this one, of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from tests.servers import free_port
from tests.training.test_launch import saved_state
from tests.training.tiny import make_job
from tsp_core.config import PretrainConfig, recipe_fields
from tsp_core.errors import ConfigError, StorageUnavailableError
from tsp_core.stages.pretrain import _recipe_fields
from tsp_core.storage import faults
from tsp_core.training import failures, nodes
from tsp_core.training.distributed import _store
from tsp_core.training.job import JOB_FILE, TrainingFailure, TrainingJob, TrainingUpdate
from tsp_core.training.launch import launch
from tsp_core.training.nodes import hosted, join


def node_job(folder: Path, *, nodes: int) -> TrainingJob:
    """Two processes, on one or on two machines, that save after every batch."""
    job = make_job(
        folder,
        nodes=nodes,
        processes=2 // nodes,
        rendezvous=f"127.0.0.1:{free_port()}",
        batch_size=2,
        checkpoint_minutes=1e-9,
        join_minutes=5,
    )
    return job.model_copy(update={"meeting_uri": str(folder / "meeting.json")})


def start_joining(job: TrainingJob) -> subprocess.Popen[bytes]:
    """Join as node 1 from a process of its own, as `tsp join` does."""
    program = (
        "import sys; from tsp_core.training.nodes import join;"
        "sys.exit(not join(sys.argv[1], node=1, cache_dir=None, wait_seconds=300))"
    )
    # As many threads as the job has here; a machine gives a training all its cores, and the number
    # of threads decides in which order sums are taken.
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.num_threads)}
    return subprocess.Popen([sys.executable, "-c", program, job.meeting_uri], env=environment)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes die with their parent on Linux only")
def test_a_lost_machine_is_replaced_and_the_result_is_the_same(tmp_path: Path) -> None:
    job = node_job(tmp_path / "two", nodes=2)
    nodes = [start_joining(job)]

    def kill_once(update: TrainingUpdate) -> None:
        if len(nodes) == 1:
            nodes[0].send_signal(signal.SIGKILL)
            nodes.append(start_joining(job))

    result = launch(job, kill_once)
    assert [node.wait(timeout=120) for node in nodes] == [-signal.SIGKILL, 0]
    whole = node_job(tmp_path / "whole", nodes=1)
    assert launch(whole, lambda update: None).rows == result.rows
    found, expected = saved_state(job), saved_state(whole)
    assert found["model"].keys() == expected["model"].keys()
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
    assert not Path(job.meeting_uri).exists()
    assert not Path(job.data_uri).exists()


class AwayStore(MemoryFileSystem):  # type: ignore[misc]
    """Does not answer the next few requests to read an object, or to fetch it into a file."""

    protocol = "away"
    failures: ClassVar = {"read": 0, "fetch": 0}

    def _answer(self, kind: str) -> None:
        if self.failures[kind] > 0:
            self.failures[kind] -= 1
            raise ConnectionResetError("by plan")

    def cat_file(self, path: str, **options: Any) -> bytes:
        self._answer("read")
        return bytes(super().cat_file(path, **options))

    def get_file(self, *arguments: Any, **options: Any) -> None:
        self._answer("fetch")
        super().get_file(*arguments, **options)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[AwayStore]]:
    fsspec.register_implementation("away", AwayStore, clobber=True)
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", ())
    monkeypatch.setattr(nodes, "_SECONDS_BETWEEN_LOOKS", 0.01)
    yield AwayStore
    AwayStore.failures.update(read=0, fetch=0)


def test_joining_goes_through_a_store_that_is_away(
    tmp_path: Path,
    away: type[AwayStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Four looks for the note fail, and then two attempts to fetch the data."""
    uris = {"meeting_uri": "away://nodes/a.json", "work_uri": "away://training/a"}
    job = node_job(tmp_path, nodes=2).model_copy(update=uris)
    seen: list[TrainingJob] = []

    def trained(job: TrainingJob, *_: object, **__: object) -> tuple[int, str]:
        assert job.path(JOB_FILE).exists()
        seen.append(job)
        return 0, ""

    monkeypatch.setattr(nodes, "run_processes", trained)
    with hosted(job):
        away.failures.update(read=4, fetch=2)
        assert join(job.meeting_uri, node=1, cache_dir=None, wait_seconds=60)
    assert away.failures == {"read": 0, "fetch": 0}
    assert [item.node for item in seen] == [1]
    assert caplog.text.count("cannot read: ConnectionResetError: by plan; going on for") == 6
    assert not Path(seen[0].folder).exists()


def test_joining_says_that_the_store_is_still_away_at_the_end(away: type[AwayStore]) -> None:
    away.failures["read"] = 1000
    with pytest.raises(StorageUnavailableError, match=r"away://nodes/a\.json: cannot read: .*plan"):
        join("away://nodes/a.json", node=1, cache_dir=None, wait_seconds=0.05)


def test_nobody_joins_what_does_not_begin(tmp_path: Path) -> None:
    assert not join(str(tmp_path / "none.json"), node=1, cache_dir=None, wait_seconds=0)


@pytest.mark.parametrize("node", [0, 2, 7])
def test_a_node_that_the_training_does_not_have_is_refused(tmp_path: Path, node: int) -> None:
    job = node_job(tmp_path, nodes=2)
    with hosted(job) as meeting:
        assert meeting is not None
        assert meeting.host == "127.0.0.1"
        expected = rf"--node {node}: the training has 2 machines .*give one of 1 to 1"
        with pytest.raises(ConfigError, match=expected):
            join(job.meeting_uri, node=node, cache_dir=None, wait_seconds=0)
    assert not Path(job.meeting_uri).exists()


def test_all_machines_learn_of_an_error_that_stays(tmp_path: Path) -> None:
    first = node_job(tmp_path, nodes=2)
    other = first.model_copy(update={"node": 1, "folder": str(tmp_path / "elsewhere")})
    Path(other.folder).mkdir()
    lost = TrainingFailure(type="WorkerLostError", message="connection closed")
    failures.record(other, lost, rank="0")
    assert not failures.is_hopeless(first)
    own = TrainingFailure(type="WeightsError", message="w.pth: not a checkpoint")
    failures.record(other, own, rank="1")
    assert failures.is_hopeless(first)
    assert own in failures.recorded(first)
    failures.forget(first)
    assert failures.recorded(first) == []


def test_results_depend_on_the_number_of_processes_not_of_machines() -> None:
    two, one = PretrainConfig(nodes=2, processes=4), PretrainConfig(processes=8)
    assert _recipe_fields(two) == _recipe_fields(one)
    assert _recipe_fields(two) != _recipe_fields(PretrainConfig(processes=4))
    assert _recipe_fields(PretrainConfig()) == recipe_fields(PretrainConfig())


def test_the_duplicate_number_of_a_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of two machines with number 1 sees it, each with one process."""
    store = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    store |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    first = _store(3, node=1)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="--node 1: another machine of the training has this"):
        _store(3, node=1)
    del first

"""Training on several machines: two agents on this one, of which one is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.servers import free_port
from tests.training.test_launch import saved_state
from tests.training.tiny import make_job
from tsp_core.training.job import TrainingJob, TrainingUpdate
from tsp_core.training.launch import launch


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
    return subprocess.Popen([sys.executable, "-c", program, job.meeting_uri])


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

"""Workers contain whatever happens in them, and are used again where nothing did."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.isolation import tasks
from tsp_core.errors import VideoError, WorkerLostError, is_transient
from tsp_core.isolation import Limits, WorkerDiedError, WorkerLimitError, WorkerPool, process
from tsp_core.isolation.limits import Watch
from tsp_core.isolation.messages import BEGUN, Result, Task
from tsp_core.isolation.process import WorkerProcess

LIMITS = Limits(stall_seconds=60, total_seconds=60, memory_bytes=64 << 20)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with closing(WorkerPool()) as workers:
        yield workers


def test_results_come_back_and_workers_are_kept(pool: WorkerPool) -> None:
    assert pool.call(tasks.add, LIMITS, 2, other=3) == 5
    ids = {pool.call(tasks.process_id, LIMITS) for _ in range(3)}
    assert len(ids) == 1
    assert os.getpid() not in ids


def test_errors_come_back_as_they_are_and_cost_no_worker(pool: WorkerPool) -> None:
    before = pool.call(tasks.process_id, LIMITS)
    with pytest.raises(VideoError, match="limits: as asked") as caught:
        pool.call(tasks.refuse, LIMITS, "limits")
    assert caught.value.code == "limits"
    assert "in refuse" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="OddError: cannot be pickled"):
        pool.call(tasks.raise_odd_error, LIMITS)
    assert pool.call(tasks.process_id, LIMITS) == before


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (tasks.read_null_pointer, (), r"signal 11 \(SIGSEGV\)"),
        (tasks.abort, (), r"signal 6 \(SIGABRT\)"),
        (tasks.end, (7,), "ended with status 7"),
    ],
)
def test_a_crash_ends_the_worker_alone(pool: WorkerPool, function, arguments, message: str) -> None:
    with pytest.raises(WorkerDiedError, match=message) as caught:
        pool.call(function, LIMITS, *arguments)
    assert is_transient(caught.value)
    assert pool.call(tasks.add, LIMITS, 1) == 2


def test_a_worker_that_was_killed_by_mistake_gets_a_second_try(
    pool: WorkerPool, tmp_path: Path
) -> None:
    assert pool.call(tasks.kill_oneself_once, LIMITS, tmp_path / "marker") == "done"


def test_a_worker_that_cannot_start_says_nothing_about_the_function(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where Python or its modules are not there: what it says is told."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(2, b'no PyAV'); os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with closing(WorkerPool()) as fresh:
        with pytest.raises(
            WorkerLostError, match=r"before it began \(.*status 3(.|\n)*no PyAV"
        ) as got:
            fresh.call(tasks.add, LIMITS, 1)
        assert type(got.value) is WorkerLostError
        assert is_transient(got.value)


def test_no_more_processes_say_nothing_about_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with closing(WorkerPool()) as fresh:
        with pytest.raises(WorkerLostError, match="cannot start a worker process: ") as got:
            fresh.call(tasks.add, LIMITS, 1)
        assert type(got.value) is WorkerLostError


def test_a_worker_that_hangs_before_it_is_ready_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hang = (
        f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    )
    (tmp_path / "sitecustomize.py").write_text(hang)
    monkeypatch.syspath_prepend(tmp_path)
    short = Limits(stall_seconds=2, total_seconds=2, memory_bytes=1 << 30)
    monkeypatch.setattr(process, "_START", short)
    with pytest.raises(WorkerLostError, match="no progress for 2 s") as got:
        WorkerProcess()
    assert type(got.value) is WorkerLostError
    (pid,) = pids.read_text().split()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (tasks.DiesWhenReceived(), r"status 7(.|\n)*no room for libexample\.so"),
        (tasks.RunsOutOfMemoryWhenReceived(), "MemoryError"),
    ],
)
def test_a_worker_that_is_lost_before_it_begins_says_nothing_about_the_function(
    pool: WorkerPool, argument: object, message: str
) -> None:
    with pytest.raises(WorkerLostError, match=message) as got:
        pool.call(tasks.echo, LIMITS, argument)
    assert type(got.value) is WorkerLostError
    with (
        pytest.raises(WorkerLostError, match=message) as got,
        pool.stream(tasks.count, LIMITS, argument, ahead=1, shared_bytes=4),
    ):
        pass
    assert type(got.value) is WorkerLostError
    assert pool.call(tasks.add, LIMITS, 1) == 2


def test_a_worker_that_was_killed_while_it_waited_costs_no_try(tmp_path: Path) -> None:
    with closing(WorkerPool()) as fresh:
        marker = tmp_path / "marker"
        assert fresh.call(tasks.echo, LIMITS, tasks.DiesWhenReceived(marker)) == "received"
        os.kill(fresh.call(tasks.process_id, LIMITS), signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="SIGSEGV"):
            fresh.call(tasks.read_null_pointer, LIMITS)
        os.kill(fresh.call(tasks.process_id, LIMITS), signal.SIGKILL)
        with fresh.stream(tasks.count, LIMITS, 3, ahead=1, shared_bytes=4) as stream:
            assert list(stream.items) == [0, 1, 2]


def test_what_a_function_writes_to_standard_error_is_not_kept(pool: WorkerPool) -> None:
    worker = WorkerProcess()
    worker.send(Task(function=tasks.write_to_standard_error, arguments=(99,), memory_bytes=1 << 30))
    watch = Watch(LIMITS)
    assert (worker.receive(watch), worker.receive(watch)) == (BEGUN, Result())
    worker.close()
    assert worker._said == ""


def test_threads_start_their_workers_from_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends workers with the thread that started them: a second starter may be lost."""
    made: list[ThreadPoolExecutor] = []

    class SlowToMake(ThreadPoolExecutor):
        def __init__(self, *arguments: object, **options: object) -> None:
            made.append(self)
            time.sleep(0.2)
            super().__init__(1)

    monkeypatch.setattr(process, "_starter", None)
    monkeypatch.setattr(process, "ThreadPoolExecutor", SlowToMake)
    monkeypatch.setattr(process, "_popen", lambda fds, errors: "started")
    with ThreadPoolExecutor(4) as threads:
        started = [threads.submit(process._from_lasting_thread, (), None) for _ in range(4)]
    assert [future.result() for future in started] == ["started"] * 4
    assert len(made) == 1
    made[0].shutdown()


@pytest.mark.parametrize("function", [tasks.hang, tasks.hang_in_native_code])
def test_a_hang_is_ended(pool: WorkerPool, function) -> None:
    limits = Limits(stall_seconds=0.3, total_seconds=60, memory_bytes=1 << 30)
    with pytest.raises(WorkerLimitError, match=r"makes no progress for 0\.3 s") as caught:
        pool.call(function, limits)
    assert caught.value.kind == "stall"
    assert pool.call(tasks.add, LIMITS, 1) == 2


def test_progress_is_no_hang_but_has_an_end(pool: WorkerPool) -> None:
    limits = Limits(stall_seconds=0.5, total_seconds=60, memory_bytes=1 << 30)
    assert pool.call(tasks.work, limits, 1.2, beating=True) == "done"
    limits = Limits(stall_seconds=60, total_seconds=0.3, memory_bytes=1 << 30)
    with pytest.raises(WorkerLimitError, match=r"is not done after 0\.3 s") as caught:
        pool.call(tasks.work, limits, 60, beating=True)
    assert caught.value.kind == "time"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
def test_memory_has_an_end(pool: WorkerPool) -> None:
    limits = Limits(stall_seconds=60, total_seconds=60, memory_bytes=20_000_000)
    with pytest.raises(WorkerLimitError, match="needs more than 20 MB of memory") as caught:
        pool.call(tasks.fill_memory, limits, 50_000_000)
    assert caught.value.kind == "memory"
    before = pool.call(tasks.process_id, LIMITS)
    with pytest.raises(WorkerLimitError, match="needs more than 20 MB of memory"):
        pool.call(tasks.allocate, limits, 200_000_000)  # the kernel refuses it
    assert pool.call(tasks.process_id, LIMITS) == before


def test_streams_come_in_order_through_shared_memory(pool: WorkerPool) -> None:
    seen = []
    with pool.stream(tasks.count, LIMITS, 300, ahead=4, shared_bytes=4) as stream:
        seen.extend(stream.memory[place] for place in stream.items)
    assert seen == [number % 256 for number in range(300)]


def test_a_stream_that_is_left_early_frees_its_worker(pool: WorkerPool) -> None:
    before = pool.call(tasks.process_id, LIMITS)
    for taken in range(6):
        with pool.stream(tasks.count, LIMITS, 5, ahead=2, shared_bytes=8192) as stream:
            assert len(list(itertools.islice(stream.items, taken))) == min(taken, 5)
    assert pool.call(tasks.process_id, LIMITS) == before


def test_streams_end_with_the_error_of_their_function_after_what_came_before(
    pool: WorkerPool,
) -> None:
    before = pool.call(tasks.process_id, LIMITS)
    seen: list[int] = []
    with (
        pytest.raises(VideoError, match="corrupted: as asked"),
        pool.stream(tasks.count_then_refuse, LIMITS, 3, ahead=4, shared_bytes=4) as stream,
    ):
        seen.extend(stream.items)
    assert seen == [0, 1, 2]
    assert pool.call(tasks.process_id, LIMITS) == before


def test_a_stream_that_crashes_says_so(pool: WorkerPool) -> None:
    seen: list[int] = []
    with (
        pytest.raises(WorkerDiedError, match="SIGSEGV"),
        pool.stream(tasks.count_then_crash, LIMITS, 2, ahead=1, shared_bytes=4) as stream,
    ):
        seen.extend(stream.items)
    assert seen == [0, 1]


def test_the_consumer_s_time_is_not_the_worker_s(pool: WorkerPool) -> None:
    limits = Limits(stall_seconds=0.4, total_seconds=0.4, memory_bytes=1 << 30)
    with pool.stream(tasks.count, limits, 4, ahead=1, shared_bytes=4) as stream:
        seen = 0
        for _ in stream.items:
            time.sleep(0.25)
            seen += 1
    assert seen == 4


def test_threads_share_the_pool(pool: WorkerPool) -> None:
    barrier = threading.Barrier(3)

    def use(number: int) -> int:
        barrier.wait()
        return pool.call(tasks.add, LIMITS, number)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(use, range(3))) == [1, 2, 3]
    # The threads that asked for these workers are gone; the workers are not.
    assert pool.call(tasks.add, LIMITS, 1) == 2


def test_workers_know_no_secret(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with closing(WorkerPool()) as fresh:
        found = fresh.call(tasks.environment, LIMITS)
    assert "PATH" in found
    assert "planted" not in found.values()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them on Linux")
@pytest.mark.parametrize("how", ["hang", "wait"])
def test_workers_die_with_their_parent(how: str) -> None:
    task = "pool.call(tasks.hang, limits)" if how == "hang" else "time.sleep(600)"
    program = (
        "import time; from tests.isolation import tasks; from tsp_core.isolation import *\n"
        "limits = Limits(stall_seconds=600, total_seconds=600, memory_bytes=1 << 30)\n"
        "pool = WorkerPool(); print(pool.call(tasks.process_id, limits), flush=True)\n" + task
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 120
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="stall_seconds: expected more than 0, got 0"):
        Limits(stall_seconds=0, total_seconds=1, memory_bytes=1)

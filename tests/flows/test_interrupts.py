"""Ctrl-C, SIGTERM, SIGHUP: one line, exit code 130 (143, 129), no process left behind, and the
next run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.dataset import make_dataset
from tests.servers import REPOSITORY, prefect_home

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc"),
    pytest.mark.slow,
]
WAIT_SECONDS = 240.0
"""Far more than anything takes here on a busy machine, and far less than what is interrupted."""
LINE = "tsp: stopping: what is finished is kept"
INTERRUPTED = (130, [LINE])
FAKES = ("-m", "tests.flows.run_interrupted")
SIGNALS: dict[str, Callable[[int], None]] = {
    "to the process": lambda pid: os.kill(pid, signal.SIGINT),
    "from the terminal": lambda pid: os.killpg(pid, signal.SIGINT),
}
ENDS: dict[str, tuple[Callable[[int], None], int]] = {
    "SIGTERM to the process": (lambda pid: os.kill(pid, signal.SIGTERM), 143),
    "as timeout ends a group": (lambda pid: end_as_timeout(pid), 143),
    "as a terminal that is closed": (lambda pid: os.killpg(pid, signal.SIGHUP), 129),
    "as systemd": (lambda pid: end_every_process(pid), 143),
}


def end_as_timeout(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGTERM)


def end_every_process(pid: int) -> None:
    """Of a control group: each by its own id, the children first."""
    for process in (*children_of(pid), pid):
        os.kill(process, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that runs.

    Attributes:
        process: It, in a process group of its own, as a terminal gives it.
        errors: What it writes to stderr.
    """

    process: subprocess.Popen[bytes]
    errors: Path

    def wait_for(self, is_there: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_there():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.02)

    def children(self) -> set[int]:
        return children_of(self.process.pid)

    def end(self) -> tuple[int, list[str]]:
        """Wait for it and its children; its status, and what it said beside its progress."""
        children = self.children()
        status = self.process.wait(WAIT_SECONDS)
        said = [line for line in self.errors.read_text().splitlines() if not is_progress(line)]
        wait_for_the_end_of(children)
        return status, [line[: len(LINE)] for line in said]


def wait_for_the_end_of(processes: set[int]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while left := list(filter(is_alive, processes)):
        assert time.monotonic() < deadline, list(map(described, left))
        time.sleep(0.05)


def children_of(pid: int) -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
                if int(fields[1]) == pid and fields[0] not in "ZX":
                    found.add(int(folder.name))
    return found


def is_progress(line: str) -> bool:
    return line.startswith(("ingest: ", "to watch in a browser"))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def described(pid: int) -> str:
    """What a process is and waits for, for who reads of a failure."""
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid}: {command}\n{(folder / 'status').read_text()}"
    return f"{pid}: gone"


def decodes(pid: int) -> bool:
    """Whether a process is a worker that has a decoder loaded.

    Before it has become the worker's program, it shares the memory of the command, decoder and
    all; who stops it there stops it before it can ask the kernel to end it with the command.
    """
    with contextlib.suppress(OSError):
        if b"tsp_core.isolation.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return "libavcodec" in Path(f"/proc/{pid}/maps").read_text()
    return False


@contextmanager
def started(folder: Path, *command: str) -> Iterator[Command]:
    given = {
        "PREFECT_HOME": str(prefect_home(folder / "prefect")),
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    inherited = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    errors = folder / "stderr.txt"
    with errors.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**inherited, **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Command(process=process, errors=errors)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text("name: cooking\nroot: store\nruntime: {workers: 2}\n")
    return str(path)


def states(folder: Path) -> list[str]:
    """The states of the flow runs in Prefect's database, the oldest first."""
    with closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as database:
        found = database.execute("select state_type from flow_run order by created").fetchall()
    return [state for (state,) in found]


@pytest.mark.parametrize("send", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("how", ["shards", "main"])
def test_a_stage_command_ends_soon_and_goes_on_when_it_is_run_again(
    tmp_path: Path, config: str, how: str, send: Callable[[int], None]
) -> None:
    command = (*FAKES, how, str(tmp_path), "ingest", config)
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        send(running.process.pid)
        assert running.end() == INTERRUPTED
    (tmp_path / "go on").touch()
    with started(tmp_path, *command) as running:
        assert running.process.wait(WAIT_SECONDS) == 0, running.errors.read_text()


@pytest.mark.server
def test_a_run_is_marked_as_crashed_and_takes_its_server_along(tmp_path: Path, config: str) -> None:
    command = (*FAKES, "shards", str(tmp_path), "run", config, "--through", "ingest", "-q")
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        assert len(running.children()) == 1  # the embedded server
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.end() == INTERRUPTED
    assert states(tmp_path) == ["CRASHED"]
    (tmp_path / "go on").touch()
    with started(tmp_path, *command) as running:
        assert running.process.wait(WAIT_SECONDS) == 0, running.errors.read_text()
    assert states(tmp_path) == ["CRASHED", "COMPLETED"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("how", "by"), [("shards", "as timeout ends a group"), ("main", "as a terminal that is closed")]
)
def test_a_run_that_is_ended_from_outside_is_marked_as_crashed(
    tmp_path: Path, config: str, how: str, by: str
) -> None:
    """In `shards`, threads are at work; in `main`, the thread that hears of the signal."""
    send, status = ENDS[by]
    command = (*FAKES, how, str(tmp_path), "run", config, "--through", "ingest", "-q")
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        send(running.process.pid)
        assert running.end() == (status, [LINE])
    assert states(tmp_path) == ["CRASHED"]


@pytest.mark.server
def test_the_server_ends_with_a_run_that_is_killed(tmp_path: Path, config: str) -> None:
    command = (*FAKES, "main", str(tmp_path), "run", config, "--through", "ingest", "-q")
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        servers = running.children()
        assert len(servers) == 1
        running.process.kill()
        wait_for_the_end_of(servers)


@pytest.mark.parametrize(("send", "status"), ENDS.values(), ids=ENDS)
def test_a_stage_command_that_is_ended_from_outside_says_so(
    tmp_path: Path, config: str, send: Callable[[int], None], status: int
) -> None:
    with started(tmp_path, *FAKES, "main", str(tmp_path), "ingest", config) as running:
        running.wait_for((tmp_path / "waits").exists)
        send(running.process.pid)
        assert running.end() == (status, [LINE])


@pytest.mark.server
def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path, config: str) -> None:
    command = (*FAKES, "hangs", str(tmp_path), "run", config, "--through", "ingest", "-q")
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        (server,) = running.children()
        os.kill(server, signal.SIGSTOP)
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.end() == INTERRUPTED


@pytest.mark.parametrize("times", [1, 2])
def test_what_does_not_let_itself_be_interrupted_is_ended(
    tmp_path: Path, config: str, times: int
) -> None:
    """After some seconds, or at once at the second interrupt."""
    with started(tmp_path, *FAKES, "stubborn", str(tmp_path), "ingest", config) as running:
        running.wait_for((tmp_path / "waits").exists)
        os.kill(running.process.pid, signal.SIGINT)
        running.wait_for(lambda: LINE in running.errors.read_text())
        if times == 2:
            os.kill(running.process.pid, signal.SIGINT)
        assert running.end() == INTERRUPTED


def test_decoding_that_hangs_ends_with_the_command(tmp_path: Path) -> None:
    """On real videos: the first decoder is stopped when it begins, so its shard hangs."""
    config = make_dataset(tmp_path)
    change = ("--set", f"root={tmp_path / 'out'}")
    command = ("-c", "from flows.cli import main; main()", "ingest", str(config), *change)
    with started(tmp_path, *command) as running:
        running.wait_for(lambda: any(map(decodes, running.children())))
        os.kill(next(filter(decodes, running.children())), signal.SIGSTOP)
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.end() == INTERRUPTED
    with started(tmp_path, *command) as running:
        assert running.process.wait(WAIT_SECONDS) == 0, running.errors.read_text()


def test_a_command_that_writes_at_its_end_says_that_nothing_is_kept(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    given = ("features", str(tmp_path / "videos"), "--out", str(tmp_path / "out"))
    weights = ("--checkpoint", "random:0", "--encoder", "r2plus1d_tiny", "--quiet")
    command = ("-c", "from flows.cli import main; main()", *given, *weights)
    with started(tmp_path, *command) as running:
        running.wait_for(lambda: any(map(decodes, running.children())))
        os.kill(next(filter(decodes, running.children())), signal.SIGSTOP)
        os.killpg(running.process.pid, signal.SIGINT)
        status, said = running.end()
    assert (status, len(said)) == (130, 1)
    assert said[0].startswith("tsp: stopping: nothing of this call is")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_that_is_ignored_stays_ignored(
    tmp_path: Path, config: str, ignored: signal.Signals
) -> None:
    """As in a background job of a script, and under nohup."""
    program = (
        f"import signal, sys; signal.signal({ignored.value}, signal.SIG_IGN);"
        "from pathlib import Path; from tests.flows.run_interrupted import main;"
        "main('shards', Path(sys.argv[1]), *sys.argv[2:])"
    )
    command = ("-c", program, str(tmp_path), "ingest", config)
    with started(tmp_path, *command) as running:
        running.wait_for((tmp_path / "waits").exists)
        os.killpg(running.process.pid, ignored)
        (tmp_path / "go on").touch()
        assert running.process.wait(WAIT_SECONDS) == 0, running.errors.read_text()

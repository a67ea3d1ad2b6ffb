"""One worker process, seen from its parent."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from tsp_core.errors import WorkerLostError
from tsp_core.isolation.heartbeat import count_in
from tsp_core.isolation.limits import Limits, Watch, WorkerDiedError, WorkerLimitError
from tsp_core.isolation.messages import HEADER_BYTES, READY
from tsp_core.tether import tied

_POLL_SECONDS = 0.1  # only how soon a limit is noticed; messages are noticed at once
_SECONDS_TO_END = 5.0
_START = Limits(stall_seconds=120, total_seconds=120, memory_bytes=1 << 30)
_PASSED_ON = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")
_PASSED_ON_PREFIXES = ("LC_", "LD_", "DYLD_", "PYTHON")
_TAIL_BYTES = 2000


class WorkerProcess:
    """A process that serves tasks; one thread at a time may use it.

    Attributes:
        num_tasks: Tasks that it has been given.
        is_busy: Whether it has not answered the last one.

    Raises:
        WorkerLostError: It does not start.
    """

    def __init__(self) -> None:
        self.num_tasks = 0
        self.is_busy = False
        self._said = ""
        try:
            self._start()
        except OSError as error:  # no memory, no more processes, no more files
            raise WorkerLostError(f"cannot start a worker process: {error}") from error
        try:
            message = self.receive(Watch(_START))
        except (WorkerDiedError, WorkerLimitError) as error:
            self.kill()
            raise self.lost(error) from None
        assert message == READY, "a worker says first that it is ready"

    def _start(self) -> None:
        with contextlib.ExitStack() as undone:
            self._errors = undone.enter_context(os.fdopen(_memory_file(), "rb"))
            self._memory_fd = _memory_file()
            undone.callback(os.close, self._memory_fd)
            os.ftruncate(self._memory_fd, HEADER_BYTES)
            self._memory = mmap.mmap(self._memory_fd, HEADER_BYTES)
            ours, theirs = socket.socketpair()
            undone.enter_context(ours)
            with theirs:
                fds = (theirs.fileno(), self._memory_fd)
                self._process = _from_lasting_thread(fds, self._errors)
            self._pipe = Connection(ours.detach())
            undone.pop_all()

    def lost(self, error: object) -> WorkerLostError:
        """What it means that it is gone before it began a task: nothing about that task."""
        said = f". It said:\n{self._said}" if self._said else ""
        return WorkerLostError(
            f"a worker process was lost before it began ({error}); where memory is short, lower "
            f"runtime.workers{said}"
        )

    def shared(self, num_bytes: int) -> memoryview:
        """Memory that the worker sees too, at least so many bytes."""
        needed = HEADER_BYTES + num_bytes
        if len(self._memory) < needed:
            os.ftruncate(self._memory_fd, needed)
            self._memory = mmap.mmap(self._memory_fd, needed)
        return memoryview(self._memory)[HEADER_BYTES:]

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            WorkerDiedError: The worker is gone.
        """
        try:
            self._pipe.send(message)
        except OSError:
            raise WorkerDiedError(self._how_it_ended()) from None

    def receive(self, watch: Watch) -> Any:
        """Wait for a message.

        Raises:
            WorkerDiedError: The worker died.
            WorkerLimitError: It takes too long.
        """
        watch.begin(count_in(self._memory))
        try:
            while not self._pipe.poll(_POLL_SECONDS):
                watch.check(count_in(self._memory), self.resident_bytes())
            return self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerDiedError(self._how_it_ended()) from None
        finally:
            watch.end()

    def resident_bytes(self) -> int:
        """Private memory that the worker has in use; 0 where the system does not tell (macOS)."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Let the worker end; kill it if it does not."""
        self._pipe.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close_files()

    def kill(self) -> None:
        """End the worker now."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._close_files()

    def _close_files(self) -> None:
        if self._memory_fd >= 0:
            self._said = _end_of(self._errors)
            self._errors.close()
            os.close(self._memory_fd)  # views of the memory may live on
            self._memory_fd = -1

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "its worker process closed the connection"
        if status >= 0:
            return f"its worker process ended with status {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        return f"its worker process died of signal {-status} ({name})"


def _memory_file() -> int:
    """A file descriptor of memory that grows on demand and is gone with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tsp-worker")
    fd, path = tempfile.mkstemp(prefix="tsp-worker-")
    Path(path).unlink()
    return fd


def _end_of(file: IO[bytes]) -> str:
    """What a worker wrote to its standard error before it began its first task."""
    file.seek(-min(_TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read().decode("utf-8", errors="replace").strip()


def _environment() -> dict[str, str]:
    """What a worker needs, and no credentials; it works in one thread."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(str(Path(item).absolute()) for item in sys.path)
    return {**passed_on, **threads, "PYTHONPATH": path}


def _popen(fds: tuple[int, ...], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tsp_core.isolation.child", *map(str, fds)],
        env=tied(_environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=fds,
        start_new_session=True,  # an interrupt from the keyboard is the parent's
    )


_starter: ThreadPoolExecutor | None = None
_starter_lock = threading.Lock()


def _from_lasting_thread(fds: tuple[int, ...], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker from a thread that lives as long as this process.

    To the kernel, the parent that a worker dies with is the thread that started it.
    """
    global _starter
    with _starter_lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, thread_name_prefix="tsp-worker-starter")
        starter = _starter
    return starter.submit(_popen, fds, errors).result()


def forget_starter() -> None:
    """After a fork: the thread did not come along, and whoever held the lock did not either."""
    global _starter, _starter_lock
    _starter = None
    _starter_lock = threading.Lock()

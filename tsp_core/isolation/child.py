"""The program of a worker process: `python -m tsp_core.isolation.child PIPE MEMORY`.

Takes tasks from its parent one after the other until the parent is gone. Both arguments are
inherited file descriptors.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import resource
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from tsp_core.isolation.heartbeat import beat_into
from tsp_core.isolation.messages import (
    BEGUN,
    HEADER_BYTES,
    READY,
    STOP,
    Failure,
    Item,
    Result,
    Task,
)
from tsp_core.tether import die_with_parent

_END = object()
_SLACK_BYTES = 64 << 20


def main(pipe_fd: int, memory_fd: int) -> None:
    """Serve tasks."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nobody wants gigabytes per damaged file
    beat_into(mmap.mmap(memory_fd, HEADER_BYTES))
    with Connection(pipe_fd) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        pipe.send(READY)
        while True:
            pipe.send_bytes(_answer(pipe, memory_fd))


def _answer(pipe: Connection, memory_fd: int) -> bytes:
    """Do one task; returns the pickled `Result` or `Failure`."""
    try:
        while not isinstance(task := pipe.recv(), Task):  # imports the function's module
            pass  # the stream that was meant has ended
        _be_quiet()
        pipe.send(BEGUN)
        _refuse_memory_beyond(task.memory_bytes)
        if task.ahead:
            _stream(pipe, memory_fd, task)
            return pickle.dumps(Result())
        return pickle.dumps(Result(value=task.function(*task.arguments, **task.keywords)))
    except (EOFError, BrokenPipeError):  # the parent is gone
        raise
    except Exception as error:
        return pickle.dumps(_failure(error))


def _stream(pipe: Connection, memory_fd: int, task: Task) -> None:
    memory = mmap.mmap(memory_fd, HEADER_BYTES + task.shared_bytes)
    view = memoryview(memory)[HEADER_BYTES:]
    items = task.function(view, *task.arguments, **task.keywords)
    allowed = task.ahead
    with contextlib.closing(items):
        while True:
            while allowed == 0 or pipe.poll():
                if pipe.recv() == STOP:
                    return
                allowed += 1
            value = next(items, _END)
            if value is _END:
                return
            pipe.send(Item(value=value))
            allowed -= 1


def _be_quiet() -> None:
    """Say no more on standard error: the parent keeps it, and decoders write much to it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def _refuse_memory_beyond(num_bytes: int) -> None:
    """Have the kernel refuse twice what the parent ends this process for (Linux).

    A decoder that is refused memory may take that for damage of the file, so it is ended before;
    this is for one that is too fast.
    """
    if sys.platform != "linux":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _private_bytes() + 2 * num_bytes + _SLACK_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _private_bytes() -> int:
    """Private writable memory of this process, in use or not: what RLIMIT_DATA counts."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _failure(error: Exception) -> Failure:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # it does not survive the way
        error_there: BaseException = RuntimeError(f"{type(error).__name__}: {error}")
    else:
        error_there = error
    is_memory = isinstance(error, MemoryError)
    return Failure(error=error_there, traceback=traceback.format_exc(), is_memory=is_memory)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

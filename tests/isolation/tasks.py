"""Functions that tests run in workers."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

from tsp_core.errors import VideoError
from tsp_core.isolation import heartbeat


class DiesWhenReceived:
    """Ends the worker while it takes the task, before it begins."""

    def __init__(self, marker: Path | None = None) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return _die_when_received, (self.marker,)


def _die_when_received(marker: Path | None) -> str:
    if marker is None or not marker.exists():
        if marker is not None:
            marker.touch()
        os.write(2, b"no room for libexample.so\n")
        os._exit(7)
    return "received"


class RunsOutOfMemoryWhenReceived:
    """Lacks memory while it takes the task, before it begins."""

    def __reduce__(self) -> tuple[object, ...]:
        return _lack_memory, ()


def _lack_memory() -> None:
    raise MemoryError


def echo(value: object) -> object:
    return value


def write_to_standard_error(num_bytes: int) -> None:
    os.write(2, b"x" * num_bytes)


def add(one: int, other: int = 1) -> int:
    return one + other


def process_id() -> int:
    return os.getpid()


def environment() -> dict[str, str]:
    return dict(os.environ)


def refuse(code: str) -> None:
    raise VideoError(code, "as asked")


def raise_odd_error() -> None:
    class OddError(Exception):
        pass

    raise OddError("cannot be pickled")


def read_null_pointer() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def end(status: int) -> None:
    os._exit(status)


def kill_oneself_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def hang() -> None:
    time.sleep(600)


def hang_in_native_code() -> None:
    """Holds the interpreter lock meanwhile."""
    ctypes.PyDLL(None).sleep(600)


def work(seconds: float, *, beating: bool) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
        if beating:
            heartbeat()
    return "done"


def allocate(num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def fill_memory(num_bytes: int) -> None:
    memory = b"x" * num_bytes
    work(60, beating=True)
    assert memory


def count(memory: memoryview, total: int) -> Generator[int, None, None]:
    """Write i into byte i % 4 and yield the place."""
    for number in range(total):
        memory[number % 4] = number % 256
        yield number % 4


def count_then_crash(memory: memoryview, total: int) -> Generator[int, None, None]:
    yield from count(memory, total)
    os.kill(os.getpid(), signal.SIGSEGV)


def count_then_refuse(memory: memoryview, total: int) -> Generator[int, None, None]:
    yield from count(memory, total)
    raise VideoError("corrupted", "as asked")

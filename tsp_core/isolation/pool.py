"""Keeps worker processes and runs tasks in them."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from tsp_core.isolation.limits import (
    Limits,
    Watch,
    WorkerDiedError,
    WorkerLimitError,
    out_of_memory,
)
from tsp_core.isolation.messages import BEGUN, MORE, STOP, Failure, Item, Result, Task
from tsp_core.isolation.process import WorkerProcess, forget_starter

P = ParamSpec("P")
R = TypeVar("R")

_TASKS_PER_WORKER = 100  # decoders leak on damaged files


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A generator function at work in a worker.

    Attributes:
        items: What it yields; an item's part of the memory is in use until the next is asked for.
        memory: Shared with it.
    """

    items: Iterator[Any]
    memory: memoryview


class WorkerPool:
    """Worker processes that wait for tasks; as many are started as are used at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []

    def call(
        self, function: Callable[P, R], limits: Limits, *arguments: P.args, **keywords: P.kwargs
    ) -> R:
        """Run a function in a worker and return its result.

        When the worker dies, the function is run again in a fresh one, for it may have been killed
        by mistake; so a function must be repeatable.

        Raises:
            WorkerDiedError: It died twice.
            WorkerLimitError: The function reached a limit.
            Exception: What the function raises.
        """
        task = Task(
            function=function,
            arguments=arguments,
            keywords=keywords,
            memory_bytes=limits.memory_bytes,
        )
        result: R
        try:
            result = self._called(task, limits)
        except WorkerDiedError:
            result = self._called(task, limits)
        return result

    @contextmanager
    def stream(
        self,
        function: Callable[..., Generator[Any, None, None]],
        limits: Limits,
        *arguments: Any,
        ahead: int,
        shared_bytes: int,
    ) -> Iterator[Stream]:
        """Run a generator function in a worker, up to `ahead` items before its consumer.

        The function's first argument is a writable memoryview of `shared_bytes` bytes, which the
        consumer sees too. Item i+ahead is begun when the consumer has asked for item i+1.

        Raises:
            WorkerDiedError: The worker died.
            WorkerLimitError: The function reached a limit; the consumer's time does not count.
            Exception: What the function raises.
        """
        task = Task(
            function=function,
            arguments=arguments,
            memory_bytes=limits.memory_bytes,
            ahead=ahead,
            shared_bytes=shared_bytes,
        )
        with self._worker() as worker:
            memory = worker.shared(shared_bytes)
            with contextlib.closing(self._items(worker, task, limits)) as items:
                yield Stream(items=items, memory=memory)

    def close(self) -> None:
        """End the workers that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def forget(self) -> None:
        """After a fork: the workers are the parent's."""
        self._lock = threading.Lock()
        self._idle = []

    def _called(self, task: Task, limits: Limits) -> Any:
        with self._worker() as worker:
            watch = _begin(worker, task, limits)
            return _result(worker, worker.receive(watch), limits)

    def _items(
        self, worker: WorkerProcess, task: Task, limits: Limits
    ) -> Generator[Any, None, None]:
        watch = _begin(worker, task, limits)
        while isinstance(message := worker.receive(watch), Item):
            try:
                yield message.value
            except GeneratorExit:
                _stop(worker)
                raise
            worker.send(MORE)
        _result(worker, message, limits)

    @contextmanager
    def _worker(self) -> Iterator[WorkerProcess]:
        """A worker for one task; it is kept when it is done with it, else killed."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or WorkerProcess()
        try:
            yield worker
        finally:
            if worker.is_busy:
                worker.kill()
            elif worker.num_tasks >= _TASKS_PER_WORKER:
                worker.close()
            else:
                with self._lock:
                    self._idle.append(worker)


def _begin(worker: WorkerProcess, task: Task, limits: Limits) -> Watch:
    """Give a worker a task; time counts from when it has imported the function."""
    worker.is_busy = True
    worker.num_tasks += 1
    worker.send(task)
    message = worker.receive(Watch(_IMPORTING))
    if message != BEGUN:
        _result(worker, message, limits)
    return Watch(limits, worker.resident_bytes())


_IMPORTING = Limits(stall_seconds=300, total_seconds=300, memory_bytes=4 << 30)


def _result(worker: WorkerProcess, message: Result | Failure, limits: Limits) -> Any:
    """What a task came to; the worker is ready for the next."""
    worker.is_busy = False
    if isinstance(message, Result):
        return message.value
    if message.is_memory:
        raise out_of_memory(limits)
    message.error.add_note(f"In a worker process:\n{message.traceback}")
    raise message.error


def _stop(worker: WorkerProcess) -> None:
    """End a stream whose consumer wants no more; a worker that does not end is left busy."""
    watch = Watch(_STOPPING)
    try:
        worker.send(STOP)
        while isinstance(worker.receive(watch), Item):
            pass
    except (WorkerDiedError, WorkerLimitError):
        return
    worker.is_busy = False


_STOPPING = Limits(stall_seconds=5, total_seconds=5, memory_bytes=64 << 30)


_pool = WorkerPool()
atexit.register(_pool.close)


def _after_fork() -> None:
    _pool.forget()
    forget_starter()


os.register_at_fork(after_in_child=_after_fork)


def call(function: Callable[P, R], limits: Limits, *arguments: P.args, **keywords: P.kwargs) -> R:
    """Run a function in one of this process's workers; see `WorkerPool.call`."""
    return _pool.call(function, limits, *arguments, **keywords)


@contextmanager
def stream(
    function: Callable[..., Generator[Any, None, None]],
    limits: Limits,
    *arguments: Any,
    ahead: int,
    shared_bytes: int,
) -> Iterator[Stream]:
    """Stream from one of this process's workers; see `WorkerPool.stream`."""
    with _pool.stream(
        function, limits, *arguments, ahead=ahead, shared_bytes=shared_bytes
    ) as running:
        yield running

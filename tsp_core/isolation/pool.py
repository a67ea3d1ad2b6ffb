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

from tsp_core.errors import WorkerLostError
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
            WorkerLostError: No worker could begin, which says nothing about the function.
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
            WorkerLostError: No worker could begin, which says nothing about the function.
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
        with self._begun(task, limits) as (worker, watch):
            memory = worker.shared(shared_bytes)
            with contextlib.closing(_items(worker, watch, limits)) as items:
                next(items)
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
        with self._begun(task, limits) as (worker, watch):
            return _result(worker, worker.receive(watch), limits)

    @contextmanager
    def _begun(self, task: Task, limits: Limits) -> Iterator[tuple[WorkerProcess, Watch]]:
        """A worker at a task, and the watch over it; it is kept when it is done, else killed.

        A worker that waited may have been killed meanwhile, so another gets the task then.
        """
        try:
            worker = self._beginning(task)
        except WorkerLostError:
            worker = self._beginning(task)
        try:
            yield worker, Watch(limits, worker.resident_bytes())
        finally:
            if worker.is_busy:
                worker.kill()
            elif worker.num_tasks >= _TASKS_PER_WORKER:
                worker.close()
            else:
                with self._lock:
                    self._idle.append(worker)

    def _beginning(self, task: Task) -> WorkerProcess:
        """Give a worker a task, and wait until it has imported the function and begins.

        Raises:
            WorkerLostError: It does not come to that.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or WorkerProcess()
        worker.is_busy = True
        worker.num_tasks += 1
        try:
            worker.shared(task.shared_bytes)
            worker.send(task)
            message = worker.receive(Watch(_IMPORTING))
        except (WorkerDiedError, WorkerLimitError) as error:
            worker.kill()
            raise worker.lost(error) from None
        except BaseException:
            worker.kill()
            raise
        if isinstance(message, Failure):
            worker.kill()
            raise worker.lost(f"{type(message.error).__name__}: {message.error}")
        assert message == BEGUN
        return worker


def _items(worker: WorkerProcess, watch: Watch, limits: Limits) -> Generator[Any, None, None]:
    """What a stream yields, after a first `None`: from there on, closing this ends the stream."""
    try:
        yield None
        while isinstance(message := worker.receive(watch), Item):
            yield message.value
            worker.send(MORE)
    except GeneratorExit:
        _stop(worker)
        raise
    _result(worker, message, limits)


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

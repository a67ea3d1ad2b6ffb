"""What a parent and its worker say to each other, pickled, over a pair of sockets.

The parent sends a `Task`; the worker answers `BEGUN` when it has imported the function, then a
`Result` or a `Failure`. The worker of a stream sends `Item`s before. It may send `Task.ahead` of
them, and one more for each `MORE`; at `STOP` it ends the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

READY, BEGUN, MORE, STOP = "ready", "begun", "more", "stop"
HEADER_BYTES = 4096
"""Start of the shared memory, where heartbeats are counted; streams get what follows."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A function to run.

    Attributes:
        function: Told by its module and name.
        arguments, keywords: For it.
        memory_bytes: Private memory that it may allocate.
        ahead: For a stream, items that may wait; 0 for a call.
        shared_bytes: For a stream, size of the memory that the function gets as first argument.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    memory_bytes: int
    ahead: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a generator yielded."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a function returned, or the end of a stream."""

    value: Any = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a function raised.

    Attributes:
        error: The exception.
        traceback: Where it arose, for people.
        is_memory: It is the lack of memory.
    """

    error: BaseException
    traceback: str
    is_memory: bool

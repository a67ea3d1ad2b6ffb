"""How long a worker may take and how much memory it may use, and what happens beyond."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from tsp_core.errors import PermanentError, WorkerLostError

LimitKind = Literal["stall", "time", "memory"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one task may use.

    Attributes:
        stall_seconds: Longest time without a heartbeat.
        total_seconds: Longest time in all, as far as the parent waits for the worker.
        memory_bytes: Resident private memory that a task may add to what its worker has (Linux).
    """

    stall_seconds: float
    total_seconds: float
    memory_bytes: int

    def __post_init__(self) -> None:
        for name in ("stall_seconds", "total_seconds", "memory_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")


class WorkerDiedError(WorkerLostError):
    """The function crashed the worker, or somebody killed it, in a fresh worker again."""


class WorkerLimitError(PermanentError):
    """The function reached a limit.

    Args:
        kind: Which: "stall", "time" or "memory".
        message: A sentence for people.
    """

    def __init__(self, kind: LimitKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


class Watch:
    """Measures what a worker uses while its parent waits for it.

    Args:
        limits: What it may use.
        resident_bytes: What it has before its task.
    """

    def __init__(self, limits: Limits, resident_bytes: int = 0) -> None:
        self._limits = limits
        self._resident_bytes = resident_bytes
        self._used_seconds = 0.0

    def begin(self, beats: int) -> None:
        """Begin to wait."""
        self._begun_at = self._moved_at = time.monotonic()
        self._beats = beats

    def check(self, beats: int, resident_bytes: int) -> None:
        """Compare with the limits.

        Raises:
            WorkerLimitError: One is reached.
        """
        now, limits = time.monotonic(), self._limits
        if beats != self._beats:
            self._beats, self._moved_at = beats, now
        if now - self._moved_at > limits.stall_seconds:
            raise WorkerLimitError("stall", f"makes no progress for {limits.stall_seconds:g} s")
        if self._used_seconds + now - self._begun_at > limits.total_seconds:
            raise WorkerLimitError("time", f"is not done after {limits.total_seconds:g} s")
        if resident_bytes - self._resident_bytes > limits.memory_bytes:
            raise out_of_memory(limits)

    def end(self) -> None:
        """End the wait; only waits count."""
        self._used_seconds += time.monotonic() - self._begun_at


def out_of_memory(limits: Limits) -> WorkerLimitError:
    """The error of a worker that wants more memory than it may use."""
    text = f"needs more than {limits.memory_bytes / 1e6:g} MB of memory"
    return WorkerLimitError("memory", text)

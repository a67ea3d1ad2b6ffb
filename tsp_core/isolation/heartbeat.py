"""Tells the parent of a worker process that work goes on, at the cost of a write to memory."""

from __future__ import annotations

import itertools
import mmap
import struct

_COUNTER = struct.Struct("=Q")
_beats = itertools.count(1)
_memory: mmap.mmap | None = None


def heartbeat() -> None:
    """Say that work goes on; to be called at least every few seconds, and harmless elsewhere."""
    if _memory is not None:
        _COUNTER.pack_into(_memory, 0, next(_beats))


def beat_into(memory: mmap.mmap) -> None:
    """Have this process's heartbeats counted in the first bytes of a memory."""
    global _memory
    _memory = memory


def count_in(memory: mmap.mmap) -> int:
    """Read how often a process has called `heartbeat`."""
    return int(_COUNTER.unpack_from(memory, 0)[0])

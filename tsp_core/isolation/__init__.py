"""Runs functions in worker processes, so that one that crashes, hangs or explodes costs itself.

`call` runs a function and returns its result, `stream` runs a generator function ahead of its
consumer; both watch the worker and end it at a limit. Functions are told by their module and name,
arguments and results are pickled. Workers are kept and used again, so what isolation costs is a
message there and one back. They see local files only: no credential is in their environment.

This contains accidents. It is no jail for code that takes over a decoder.
"""

from __future__ import annotations

from tsp_core.isolation.heartbeat import heartbeat
from tsp_core.isolation.limits import Limits, WorkerDiedError, WorkerLimitError
from tsp_core.isolation.pool import WorkerPool, call, stream

__all__ = [
    "Limits",
    "WorkerDiedError",
    "WorkerLimitError",
    "WorkerPool",
    "call",
    "heartbeat",
    "stream",
]

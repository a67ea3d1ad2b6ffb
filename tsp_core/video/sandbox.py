"""Decodes in worker processes with limits, so that a bad file costs that file alone.

A file that crashes the decoder (in two fresh workers), hangs it, or needs more memory or time than
the limits allow becomes a `VideoError`, as a file does that the decoder refuses. Any function that
takes the file's path first can be run so; it should call `tsp_core.isolation.heartbeat` for each
frame.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from tsp_core import isolation
from tsp_core.config import RuntimeConfig
from tsp_core.errors import VideoError
from tsp_core.isolation import Limits, WorkerDiedError, WorkerLimitError

P = ParamSpec("P")
R = TypeVar("R")

_MB = 1_000_000
_SETTINGS = {
    "stall": "runtime.decoder_stall_seconds",
    "time": "runtime.decoder_seconds",
    "memory": "runtime.decoder_memory_mb",
}


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What decoding one file may take; the fields are those of `RuntimeConfig`."""

    isolate: bool
    stall_seconds: float
    seconds: float
    seconds_per_mb: float
    memory_mb: int
    gigapixels: float
    pixels_per_byte: int

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> DecodingLimits:
        """The configured limits."""
        return cls(
            isolate=runtime.isolate_decoding,
            stall_seconds=runtime.decoder_stall_seconds,
            seconds=runtime.decoder_seconds,
            seconds_per_mb=runtime.decoder_seconds_per_mb,
            memory_mb=runtime.decoder_memory_mb,
            gigapixels=runtime.decoder_gigapixels,
            pixels_per_byte=runtime.decoder_pixels_per_byte,
        )

    def for_file(self, path: Path) -> Limits:
        """The limits of a worker that decodes this file."""
        return Limits(
            stall_seconds=self.stall_seconds,
            total_seconds=self.seconds + self.seconds_per_mb * _size(path) / _MB,
            memory_bytes=self.memory_mb * _MB,
        )

    def max_pixels(self, path: Path) -> int:
        """Most pixels that this file may decode to."""
        return int(self.gigapixels * 1e9) + self.pixels_per_byte * _size(path)


def run_sandboxed(
    function: Callable[Concatenate[Path, P], R],
    path: Path,
    limits: DecodingLimits,
    *arguments: P.args,
    **keywords: P.kwargs,
) -> R:
    """Run `function(path, ...)` in a worker process and return its result.

    Args:
        function: One that workers can import by its module and name; it must be repeatable.
        path: Local video file.
        limits: For one file; without `isolate` the function is run in this process.
        arguments: More for the function; they and the result are pickled.
        keywords: More for the function.

    Raises:
        VideoError: crashed or limits, or as the function raises it.
        WorkerLostError: No worker process could begin, which says nothing about the file.
    """
    if not limits.isolate:
        return function(path, *arguments, **keywords)
    with verdicts(path):
        return isolation.call(function, limits.for_file(path), path, *arguments, **keywords)


@contextmanager
def verdicts(path: Path) -> Iterator[None]:
    """Turn what becomes of a worker into what that says about the file it decoded."""
    try:
        yield
    except WorkerDiedError as error:
        message = f"{path.name!r}: the decoder crashes on it, twice: {error}"
        raise VideoError("crashed", message) from None
    except WorkerLimitError as error:
        raise VideoError(
            "limits",
            f"{path.name!r}: decoding {error}; raise {_SETTINGS[error.kind]} if the file is sound",
        ) from None


def _size(path: Path) -> int:
    """Size in bytes; of what is no file, or cannot be reached, 0: whoever opens it says why."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0

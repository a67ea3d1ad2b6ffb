"""Progress of a running stage: to Prefect as a progress artifact, and to whoever observes it.

The command line observes with `observed_by`; the observer is a context variable, which Prefect
carries into the threads of its task runner.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from tsp_core.stages.base import Progress, ProgressCallback, no_progress

MIN_INTERVAL_SECONDS = 2.0
_observer: ContextVar[ProgressCallback] = ContextVar("tsp_progress_observer", default=no_progress)
_logger = logging.getLogger(__name__)


@contextmanager
def observed_by(observer: ProgressCallback) -> Iterator[None]:
    """Also report progress to `observer` while the context is open."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


class ProgressReporter:
    """A callback that keeps one progress artifact up to date, at most every two seconds.

    Call it inside a flow or task run. A Prefect server that does not answer costs the update, not
    the run.

    Args:
        key: Key of the artifact.
        min_interval_seconds: Least time between updates; the first and the last always go out.
    """

    def __init__(self, key: str, *, min_interval_seconds: float = MIN_INTERVAL_SECONDS) -> None:
        self._key = key
        self._min_interval_seconds = min_interval_seconds
        self._artifact: UUID | None = None
        self._sent_at = -float("inf")
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        _observer.get()(progress)
        with self._lock:
            now = time.monotonic()
            is_last = progress.done >= progress.total
            if is_last or now - self._sent_at >= self._min_interval_seconds:
                self._sent_at = now
                self._send(progress)

    def _send(self, progress: Progress) -> None:
        percent = 100.0 * min(progress.done / progress.total, 1.0) if progress.total > 0 else 100.0
        text = describe(progress)
        try:
            if self._artifact is None:
                made = create_progress_artifact(percent, key=self._key, description=text)
                assert isinstance(made, UUID)
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except (httpx.HTTPError, PrefectException, OSError) as error:
            _logger.warning("progress of %s was not sent: %s", progress.stage, error)


def describe(progress: Progress) -> str:
    """One line for people: `gvf: 3 of 12 shards, 48 videos`."""
    counts = f"{progress.stage}: {progress.done:g} of {progress.total:g} {progress.unit}"
    return f"{counts}, {progress.message}" if progress.message else counts

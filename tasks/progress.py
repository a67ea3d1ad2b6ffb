"""Progress of a running stage: to Prefect as a progress artifact, and to whoever observes it.

The command line observes with `observed_by`; the observer is a context variable, which Prefect
carries into the threads of its task runner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tasks.live import LiveArtifact
from tasks.pace import Pace
from tsp_core.stages.base import Progress, ProgressCallback, no_progress

MIN_INTERVAL_SECONDS = 2.0
_observer: ContextVar[ProgressCallback] = ContextVar("tsp_progress_observer", default=no_progress)


@contextmanager
def observed_by(observer: ProgressCallback) -> Iterator[None]:
    """Also report progress to `observer` while the context is open."""
    before = _observer.get()

    def both(progress: Progress) -> None:
        before(progress)
        observer(progress)

    token = _observer.set(both)
    try:
        yield
    finally:
        _observer.reset(token)


class ProgressReporter:
    """A callback that keeps one progress artifact up to date, at most every two seconds.

    Call it inside a flow or task run. A Prefect server that does not answer costs the update, not
    the run, and no time.

    Args:
        key: Key of the artifact.
        min_interval_seconds: Least time between updates; the last always goes out.
        show_short_work: Whether work that is over before an update is due is shown, too. Where it
            is not, work of a moment leaves no artifact.
    """

    def __init__(
        self,
        key: str,
        *,
        min_interval_seconds: float = MIN_INTERVAL_SECONDS,
        show_short_work: bool = True,
    ) -> None:
        self._artifact = LiveArtifact(key, type="progress")
        self._pace = Pace()
        self._min_interval_seconds = min_interval_seconds
        self._is_shown = show_short_work
        self._sent_at = -float("inf") if show_short_work else time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        _observer.get()(progress)
        with self._lock:
            self._pace.add(progress)
            now = time.monotonic()
            is_last = progress.done >= progress.total and self._is_shown
            if is_last or now - self._sent_at >= self._min_interval_seconds:
                self._sent_at, self._is_shown = now, True
                share = progress.done / progress.total if progress.total > 0 else 1.0
                self._artifact.show(100.0 * min(share, 1.0), self._pace.text())

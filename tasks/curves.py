"""The losses of a training while it goes on, as a picture in the UI."""

from __future__ import annotations

import base64
import threading
import time
from functools import partial

from tasks.live import LiveArtifact, OnShown, best_effort
from tsp_core.stages.base import Progress
from tsp_core.training.job import CurvePoint

MIN_INTERVAL_SECONDS = 60.0
"""Between two pictures within an epoch; the end of an epoch is shown at once."""
MAX_STEPS = 2000
"""Points of single steps that are kept: when there are more, every second one is dropped."""


class LiveCurves:
    """Draws the points that progress brings; make it inside the flow run.

    Args:
        key: Key of the artifact.
        on_shown: Told its address when there is a picture, by another thread.
    """

    def __init__(self, key: str, on_shown: OnShown) -> None:
        self._artifact = LiveArtifact(
            key, type="markdown", on_made=partial(on_shown, "loss curves")
        )
        self._epochs: list[CurvePoint] = []
        self._steps: list[CurvePoint] = []
        self._drawn_at = time.monotonic()
        self._lock = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Take the points of a stage's progress, and draw them when it is time."""
        if not progress.points:
            return
        with self._lock:
            steps = [point for point in progress.points if point.phase == "step"]
            ends = [point for point in progress.points if point.phase != "step"]
            self._epochs += ends
            self._steps += steps
            if len(self._steps) > MAX_STEPS:
                self._steps = _thinned(self._steps)
            is_due = time.monotonic() - self._drawn_at >= MIN_INTERVAL_SECONDS
            if is_due or any(point.phase == "valid" for point in ends):
                self._drawn_at = time.monotonic()
                self._draw(progress.message)

    @best_effort
    def _draw(self, message: str) -> None:
        from tsp_core.training.plots import draw_points  # matplotlib, where it is needed

        picture = base64.b64encode(draw_points([*self._steps, *self._epochs])).decode()
        text = (
            "# Training, so far\n\n"
            f"![Loss and accuracy by epoch](data:image/png;base64,{picture})\n\n"
            f"{message}\n\nThin: single steps. Dashed: training epochs. Full: validation.\n"
        )
        self._artifact.show(text, message)


def _thinned(points: list[CurvePoint]) -> list[CurvePoint]:
    """Every second step, with all its figures."""
    places = sorted({point.epochs for point in points})[::2]
    kept = set(places)
    return [point for point in points if point.epochs in kept]

"""How fast a stage goes and how long it still takes, told from its progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tsp_core.stages.base import Progress

WINDOW_SECONDS = 300.0
"""Rates are those of the last minutes: a stage is slower in some parts than in others."""


class Pace:
    """Keeps the recent progress of one stage.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, Progress]] = deque()
        self._first: tuple[float, Progress] | None = None

    def add(self, progress: Progress) -> None:
        """Take note of progress; other work (another unit or total) begins anew."""
        if self._first is None or _is_other_work(self._recent[-1][1], progress):
            self._recent.clear()
            self._first = (self._clock(), progress)
        self._recent.append((self._clock(), progress))
        while len(self._recent) > 2 and self._clock() - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()

    def rates(self) -> dict[str, float]:
        """Units per second, by name; what cannot be told yet is left out."""
        if not self._recent:
            return {}
        is_done = self._recent[-1][1].done >= self._recent[-1][1].total
        began, first = self._first if is_done and self._first else self._recent[0]
        now, latest = self._recent[-1]
        if now <= began:
            return {}
        before, after = _counts(first), _counts(latest)
        rates = {name: (after[name] - before.get(name, 0.0)) / (now - began) for name in after}
        return {name: rate for name, rate in rates.items() if rate > 0}

    def seconds_left(self) -> float | None:
        """Estimated from the rate; None when there is none."""
        rate = self.rates().get(self._recent[-1][1].unit) if self._recent else None
        if rate is None:
            return None
        latest = self._recent[-1][1]
        return max(latest.total - latest.done, 0.0) / rate

    def text(self) -> str:
        """One line for people, what matters most first: cards of the UI show forty letters."""
        if not self._recent:
            return ""
        latest = self._recent[-1][1]
        parts = [f"{latest.done:g} of {latest.total:g} {latest.unit}"]
        left = self.seconds_left()
        if latest.done < latest.total and left is not None:
            parts.append(f"{duration(left)} left")
        parts += [f"{rate:.3g} {name}/s" for name, rate in self.rates().items()]
        return ", ".join(part for part in [*parts, latest.message] if part)


def duration(seconds: float) -> str:
    """A length of time for people: `2 h 5 min`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 1:
        return "under 1 s"
    if minutes < 1:
        return f"{whole} s"
    if minutes < 10:
        return f"{minutes} min {whole % 60} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def _is_other_work(before: Progress, now: Progress) -> bool:
    return (before.stage, before.unit, before.total) != (
        now.stage,
        now.unit,
        now.total,
    ) or now.done < before.done


def _counts(progress: Progress) -> dict[str, float]:
    return {**progress.counts, progress.unit: progress.done}

"""What the command line shows: lines and progress on stderr, results on stdout."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from flows.documents import result_uris
from tasks.pace import Pace
from tsp_core import status as state
from tsp_core import storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.prune import Garbage
from tsp_core.stages.base import Progress as StageProgress
from tsp_core.stages.base import ProgressCallback, StageReport, no_progress
from tsp_core.study.state import RunStatus

PLAIN_INTERVAL_SECONDS = 10.0
_OWN_LOGGERS = {"flows": logging.INFO, "tasks": logging.INFO, "tsp_core": logging.WARNING}
_VERBS = {
    "done": ("reuse", "green"),
    "stale": ("run", "yellow"),
    "missing": ("run", "yellow"),
    "not used": ("skip", "dim"),
}
_AVERAGE_MAP = "average_map_"
_UNLIMITED = 100_000
"""Columns of a line that no terminal shows; rich takes 80 where there is none."""
_COLORS = {"done": "green", "stale": "yellow", "missing": "red", "not used": "dim"}


class _ConsoleHandler(logging.Handler):
    """Prints records as plain lines, above the progress bars where there are any."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = f"{prefix}{record.getMessage()}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def displayed(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """Show the project's log lines and progress on stderr; yields the progress callback.

    When quiet, warnings and errors only. Colours follow the terminal and NO_COLOR.
    """
    console = Console(stderr=True)
    handlers: list[tuple[logging.Logger, logging.Handler]] = []
    for name, level in _OWN_LOGGERS.items():
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        handler: logging.Handler = _ConsoleHandler(console, logging.WARNING if quiet else level)
        logger.addHandler(handler)
        handlers.append((logger, handler))
    try:
        if quiet:
            yield no_progress
        elif console.is_terminal:
            with _bars(console) as bars:
                yield _Bars(bars)
        else:
            yield _Lines(console)
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.fields[text]}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


class _Bars:
    """One bar per stage; a finished one disappears."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._ids: dict[str, TaskID] = {}
        self._done: dict[str, float] = {}

    def __call__(self, progress: StageProgress) -> None:
        key = f"{progress.stage} {progress.unit}"
        if key not in self._ids:
            self._ids[key] = self._bars.add_task(progress.stage, text="")
            self._done[key] = 0.0
        if progress.done < self._done[key]:  # the same stage of a study's next run
            self._bars.reset(self._ids[key])
        self._done[key] = progress.done
        self._bars.update(
            self._ids[key],
            completed=progress.done,
            total=progress.total,
            text=_text(progress),
            visible=progress.done < progress.total,
        )


class _Lines:
    """A line when a stage's work begins and ends, and every ten seconds between, with its ETA.

    Args:
        console: Where they go.
        clock: Seconds that only grow.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._paces: dict[str, Pace] = {}
        self._printed_at: dict[str, float] = {}
        self._finished: set[str] = set()

    def __call__(self, progress: StageProgress) -> None:
        key = f"{progress.stage} {progress.unit}"
        now = self._clock()
        pace = self._paces.setdefault(key, Pace(self._clock))
        pace.add(progress)
        is_last = progress.done >= progress.total
        if is_last and key in self._finished:
            return
        if is_last:
            self._finished.add(key)
        else:  # in a study each stage comes again
            self._finished.discard(key)
        if is_last or now - self._printed_at.get(key, -math.inf) >= PLAIN_INTERVAL_SECONDS:
            self._printed_at[key] = now
            text = f"{progress.stage}: {_text(progress)}{_left(pace.seconds_left())}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _left(seconds: float | None) -> str:
    return f", {timedelta(seconds=round(seconds))} left" if seconds else ""


def _text(progress: StageProgress) -> str:
    counts = f"{progress.done:g}/{progress.total:g} {progress.unit}"
    return f"{counts}, {progress.message}" if progress.message else counts


def _results() -> Console:
    """Standard output. In a file or another program's input, no line is broken or cut."""
    console = Console()
    if not sys.stdout.isatty():
        console.width = _UNLIMITED
    return console


def _table(*headers: str) -> Table:
    """A table without lines; where a terminal is too narrow for a URI, it goes on below."""
    columns = [Column(header, overflow="fold") for header in headers]
    return Table(*columns, box=None, pad_edge=False)


def print_results(reports: Mapping[str, StageReport]) -> None:
    """Print what a run ends with: where things are, and the figures of the evaluation."""
    console = _results()
    for what, uri in result_uris(reports).items():
        _print_pair(console, what, uri)
    if "evaluate" in reports:
        for what, value in _figures(reports["evaluate"].summary):
            _print_pair(console, what, f"{value:.1%}")


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The accuracies of the heads and the average mAP of each localizer, with their names."""
    for key, value in sorted(summary.items()):
        if not isinstance(value, int | float):
            continue
        if key.startswith(_AVERAGE_MAP):
            localizer = key.removeprefix(_AVERAGE_MAP)
            yield f"{summary['subset']} mAP, {localizer} ({summary['protocol']})", value
        elif "accuracy" in key:
            measure, _, head = key.rpartition("_")
            yield f"{summary['subset']} {head} {measure.replace('_', ' ')}", value


def print_study(comparison: ArtifactRef) -> None:
    """Print what a study ends with: the table of its variants, and where the report is."""
    console = _results()
    rows = storage.read_bytes(comparison.file("table.md")).decode().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    table = _table(*cells[0])
    for row in cells[2:]:
        table.add_row(*map(_escaped, row))
    console.print(table, soft_wrap=True)
    _print_pair(console, "report", storage.redact(comparison.file("report.html")))


def _print_pair(console: Console, name: str, value: str) -> None:
    console.print(f"{name:<40} {value}", markup=False, highlight=False, soft_wrap=True)


def print_status(
    found: list[state.StageStatus], videos: list[state.QuarantinedVideo], num_problems: int
) -> None:
    """Print the stages' states, the videos left out, and the number of annotation problems."""
    console = _results()
    table = _table("stage", "state", "why / where")
    for entry in found:
        where = storage.redact(entry.artifact.uri) if entry.artifact else ""
        where = "; ".join(text for text in (where, entry.reason) if text)
        color = _COLORS[entry.state]
        table.add_row(entry.stage, f"[{color}]{entry.state}[/{color}]", _escaped(where))
    console.print(table, soft_wrap=True)
    if videos:
        console.print(f"\n{len(videos)} in quarantine:", highlight=False)
    for video in videos:
        text = f"  {video.video} ({video.stage}): {video.code}: {video.reason}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if num_problems:
        console.print(
            f"\n{num_problems} problems in the annotations; see problems.parquet of annotate",
            highlight=False,
        )


def print_plan(found: Sequence[state.StageStatus]) -> None:
    """Print what a run would do with each stage, and why."""
    console = _results()
    table = _table("stage", "would", "why / where", "videos to do")
    for entry in found:
        verb, color = _VERBS[entry.state]
        where = storage.redact(entry.artifact.uri) if entry.artifact else entry.reason
        todo = f"{entry.num_videos_to_do} of {entry.num_videos}" if entry.num_videos else ""
        table.add_row(entry.stage, f"[{color}]{verb}[/{color}]", _escaped(where), todo)
    console.print(table, soft_wrap=True)


def print_study_status(found: Sequence[RunStatus]) -> None:
    """Print how far each run of a study is."""
    console = _results()
    table = _table("run", "state", "why / where")
    for entry in found:
        where = storage.redact(entry.artifact.uri) if entry.artifact else entry.reason
        color = _COLORS[entry.state]
        table.add_row(entry.label, f"[{color}]{entry.state}[/{color}]", _escaped(where))
    console.print(table, soft_wrap=True)


def print_garbage(found: Sequence[Garbage]) -> None:
    """Print what may be deleted, with sizes and ages, and the sum."""
    console = _results()
    if not found:
        console.print("nothing to delete: everything is referred to, or new")
        return
    table = _table("what", "MB", "hours old", "where")
    for item in found:
        hours = f"{(time.time() - item.modified_at) / 3600:.0f}"
        where = _escaped(storage.redact(item.uri))
        table.add_row(item.kind, f"{item.size_bytes / 1e6:.1f}", hours, where)
    console.print(table, soft_wrap=True)
    total = sum(item.size_bytes for item in found)
    console.print(f"\n{len(found)} in all, {total / 1e6:.1f} MB", highlight=False)


def _escaped(text: str) -> str:
    return escape(text)

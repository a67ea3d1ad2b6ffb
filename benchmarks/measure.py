"""Measures things side by side on a machine that others use too.

What is compared takes turns, so that all suffer from the same neighbours; CPU time is counted
(what one core would take undisturbed) beside wall time; medians over the rounds are reported, and
ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")

Row = dict[str, Any]
"""A line of the results: name, value, baseline, ratio, unit, target, notes."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Items per second of CPU time and of wall time in each round."""

    cpu: list[float]
    wall: list[float]

    @property
    def per_core(self) -> float:
        """Items per second of CPU time, median."""
        return statistics.median(self.cpu)


def side_by_side(
    works: Mapping[str, Callable[[], int]],
    *,
    rounds: int,
    cpu_seconds: Callable[[], float] = time.process_time,
) -> dict[str, Rates]:
    """Run each work once a round; a work returns how many items it has done.

    Args:
        works: By name.
        rounds: How many.
        cpu_seconds: CPU time so far; that of this process by default.
    """
    rates = {name: Rates(cpu=[], wall=[]) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            count = work()
            rates[name].cpu.append(count / (cpu_seconds() - cpu))
            rates[name].wall.append(count / (time.perf_counter() - wall))
    return rates


def cpu_seconds() -> float:
    """CPU time of this process, of its children that ended, and of those that live."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(_child_seconds(pid) for pid in _children())
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def _children() -> list[str]:
    files = Path("/proc/self/task").glob("*/children")
    return [pid for file in files for pid in file.read_text(encoding="ascii").split()]


def _child_seconds(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def ratio(ours: Rates, baseline: Rates) -> float:
    """How many times as fast per core, median of the rounds."""
    return statistics.median(a / b for a, b in zip(ours.cpu, baseline.cpu, strict=True))


def row(
    name: str,
    value: float,
    *,
    unit: str,
    baseline: float | None = None,
    ratio: float | None = None,
    target: str = "",
    notes: str = "",
) -> Row:
    """Make a line of the results."""
    return {
        "name": name,
        "value": value,
        "baseline": baseline,
        "ratio": ratio,
        "unit": unit,
        "target": target,
        "notes": notes,
    }


def rate_row(name: str, ours: Rates, baseline: Rates, *, target: str = "", notes: str = "") -> Row:
    """Make a line that compares clips per second."""
    wall = f"wall {statistics.median(ours.wall):.0f} against {statistics.median(baseline.wall):.1f}"
    return row(
        name,
        ours.per_core,
        unit="clips/s/core",
        baseline=baseline.per_core,
        ratio=ratio(ours, baseline),
        target=target,
        notes="; ".join(part for part in (wall, notes) if part),
    )


def print_rows(rows: Sequence[Row]) -> None:
    """Print the lines as a table."""
    print(f"{'':58} {'value':>9} {'baseline':>9} {'ratio':>7}  unit")
    for line in rows:
        baseline, times = line["baseline"], line["ratio"]
        print(
            f"{line['name']:58} {line['value']:9.4g} "
            f"{'' if baseline is None else format(baseline, '.4g'):>9} "
            f"{'' if times is None else format(times, '.1f') + 'x':>7}  {line['unit']}"
            f"{'  [target ' + line['target'] + ']' if line['target'] else ''}"
            f"{'  (' + line['notes'] + ')' if line['notes'] else ''}",
            flush=True,
        )


def arguments(description: str | None, **options: dict[str, Any]) -> argparse.Namespace:
    """Parse the command line of a benchmark: --quick, --json and the script's own options."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def report(rows: Sequence[Row], json_file: Path | None) -> None:
    """Print the lines and, where asked for, write them as JSON."""
    print_rows(rows)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(list(rows), indent=1) + "\n")


def real_videos(*names: str) -> list[Path]:
    """Videos of the reference data beside the checkout (TSP_SHARED), where it is there."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("TSP_SHARED", beside)) / "data" / "clips"
    return [folder / name for name in names if (folder / name).is_file()]

"""A sampling profiler and its picture: which lines are being executed, as an icicle.

A thread looks at the stack of the working thread every few milliseconds. Time inside libraries
(FFmpeg, NumPy, torch) shows as the line that called them.
"""

from __future__ import annotations

import html
import linecache
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_INTERVAL_SECONDS = 0.002
_WIDTH, _LINE_HEIGHT, _MARGIN = 1200, 18, 30
_SMALLEST = 0.004  # share of the time below which a box is left out
_COLORS = ("#f2b880", "#eec68a", "#f7d8a0", "#e9a86c")

Stack = tuple[str, ...]


def sampled(work: Callable[[], object]) -> Counter[Stack]:
    """Run a work; return the microseconds in which each stack was seen, outermost call first.

    A look has to wait while Python code runs, so each counts for the time since the one before.
    """
    stacks: Counter[Stack] = Counter()
    stop = threading.Event()
    worker = threading.get_ident()

    def watch() -> None:
        before = time.perf_counter()
        while not stop.wait(_INTERVAL_SECONDS):
            stack = _stack(sys._current_frames().get(worker))
            now = time.perf_counter()
            stacks[stack] += round(1e6 * (now - before))
            before = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        stop.set()
        watcher.join()
    return stacks


def _stack(frame: FrameType | None) -> Stack:
    names = []
    is_leaf = True
    while frame is not None and frame.f_code is not sampled.__code__:
        code = frame.f_code
        if is_leaf:
            text = linecache.getline(code.co_filename, frame.f_lineno).strip()
            names.append(f"{Path(code.co_filename).stem}:{frame.f_lineno}  {text}")
        names.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        is_leaf = False
        frame = frame.f_back
    return tuple(reversed(names))


def draw(stacks: Counter[Stack], target: Path, *, title: str) -> None:
    """Draw stacks and their microseconds as an SVG, callers above what they call."""
    total = sum(stacks.values())
    boxes: list[str] = []
    depth = _draw_level(boxes, stacks, 0, 0.0, total)
    height = _MARGIN + (depth + 1) * _LINE_HEIGHT
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="4" y="20" font-size="14">{html.escape(title)}: {total / 1e6:.1f} s</text>'
        f"{''.join(boxes)}</svg>\n"
    )


def _draw_level(
    boxes: list[str], stacks: Counter[Stack], level: int, left: float, total: int
) -> int:
    """Draw one depth of stacks that share their callers; the depth of the deepest box."""
    groups: dict[str, Counter[Stack]] = {}
    for stack, count in stacks.items():
        if len(stack) > level:
            groups.setdefault(stack[level], Counter())[stack] += count
    deepest = level
    for name, inner in sorted(groups.items()):
        share = sum(inner.values()) / total
        if share >= _SMALLEST:
            boxes.append(_box(name, level, left, share))
            deepest = max(deepest, _draw_level(boxes, inner, level + 1, left, total))
        left += share
    return deepest


def _box(name: str, level: int, left: float, share: float) -> str:
    x, width = left * _WIDTH, share * _WIDTH
    y = _MARGIN + level * _LINE_HEIGHT
    color = _COLORS[sum(name.encode()) % len(_COLORS)]
    shown = html.escape(name[: max(0, int(width / 6.7) - 1)])
    return (
        f'<g><title>{html.escape(name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}" '
        f'width="{max(width - 0.5, 0.5):.1f}" height="{_LINE_HEIGHT - 1}" fill="{color}"/>'
        f'<text x="{x + 2:.1f}" y="{y + 12}">{shown}</text></g>'
    )

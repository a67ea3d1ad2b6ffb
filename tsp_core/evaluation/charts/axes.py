"""Axes: scales, ticks, grid, labels and the legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from tsp_core.evaluation.charts.svg import (
    CHARACTER_WIDTH,
    element,
    group,
    line,
    shortened_names,
    text,
)

WIDTH, HEIGHT = 400, 270
"""Size of a chart in pixels; a narrow phone shows it at its own size."""

_LEGEND_LINE = 17
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 40
_BETWEEN_TICKS = 8
_MAX_KEY = 46  # characters: a key is at most a line of the legend

FormatTick = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend."""

    name: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Area:
    """The rectangle that data are drawn in, and the values at its borders."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    @property
    def chart_height(self) -> int:
        """Height of a chart with its axis and labels below the area."""
        return round(self.bottom + _BOTTOM)


def plain_tick(value: float) -> str:
    """Write a tick with as few digits as it needs."""
    return f"{value:.12g}".replace("-", "\N{MINUS SIGN}")


def share_tick(value: float) -> str:
    """Write a tick as per cent."""
    return f"{100 * value:.4g} %"


def ticks_between(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round values, steps of 1, 2 or 5 times a power of ten, about `count` of them."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= 0.6 * raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def fitting_ticks(
    low: float, high: float, *, pixels: float, written: FormatTick, count: int = 5
) -> list[float]:
    """Ticks as of `ticks_between`, at most so many that their texts stay apart.

    Args:
        low: Least value of the axis.
        high: Greatest.
        pixels: Length of the axis.
        written: Writes a tick.
        count: About how many where there is room.
    """
    ticks = ticks_between(low, high, count=count)
    scale = pixels / (high - low)
    while count > 1 and not _are_apart([tick * scale for tick in ticks], ticks, written):
        count -= 1
        ticks = ticks_between(low, high, count=count)
    return ticks


def _thinned(ticks: Sequence[float], area: Area, written: FormatTick) -> list[float]:
    """Every k-th tick, with the least k at which the texts stay apart."""
    every = 1
    while not _are_apart([area.x(tick) for tick in ticks[::every]], ticks[::every], written):
        every += 1
    return list(ticks[::every])


def _are_apart(places: Sequence[float], ticks: Sequence[float], written: FormatTick) -> bool:
    widest = CHARACTER_WIDTH * max((len(written(tick)) for tick in ticks), default=0)
    steps = [after - before for before, after in pairwise(places)]
    return all(step >= widest + _BETWEEN_TICKS for step in steps)


def rounded_range(values: Sequence[float], *, include_zero: bool = False) -> tuple[float, float]:
    """The range of finite values, widened a little; never empty."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if include_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return (low if include_zero and low == 0 else low - margin, high + margin)


def legend(keys: Sequence[Key], width: float = WIDTH) -> tuple[Markup, float]:
    """Draw a legend over the chart, long names shortened; returns it and its height."""
    drawn: list[Markup] = []
    x, y = float(_LEFT), float(_TOP)
    names = shortened_names([key.name for key in keys], _MAX_KEY)
    for key, name in zip(keys, names, strict=True):
        needed = 22 + CHARACTER_WIDTH * len(name)
        if x > _LEFT and x + needed > width:
            x, y = float(_LEFT), y + _LEGEND_LINE
        dash = "4 3" if key.dashed else None
        drawn.append(
            element(
                "line",
                x1=x,
                y1=y,
                x2=x + 14,
                y2=y,
                class_=f"key {key.colour}",
                stroke_dasharray=dash,
            )
        )
        drawn.append(text(name, x + 19, y + 4))
        x += needed + 10
    return Markup("").join(drawn), (y + 4 if keys else 0.0)


def frame(
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    y_tick: FormatTick = plain_tick,
    x_tick: FormatTick = plain_tick,
    keys: Sequence[Key] = (),
    height: int = HEIGHT,
    x_grid: bool = False,
) -> tuple[Area, Markup]:
    """Draw axes with their grid, labels and legend.

    A legend of several lines makes the chart higher, and leaves the data as much room as one of a
    single line. Ticks whose texts would run into each other are thinned out.

    Returns:
        Where data go, and the markup to put before them.
    """
    over, legend_height = legend(keys)
    height = round(height + max(0.0, legend_height - _TOP - 4))
    area = Area(
        left=_LEFT,
        top=_TOP + legend_height,
        right=WIDTH - _RIGHT,
        bottom=height - _BOTTOM,
        x_range=x_range,
        y_range=y_range,
    )
    parts = [over]
    for value in ticks_between(*y_range):
        parts.append(line(area.left, area.y(value), area.right, area.y(value), "grid"))
        parts.append(text(y_tick(value), area.left - 6, area.y(value) + 4, text_anchor="end"))
    if x_ticks is None:
        x_ticks = fitting_ticks(*x_range, pixels=area.right - area.left, written=x_tick)
    for value in _thinned(x_ticks, area, x_tick):
        if x_grid:
            parts.append(line(area.x(value), area.top, area.x(value), area.bottom, "grid"))
        parts.append(text(x_tick(value), area.x(value), area.bottom + 16, text_anchor="middle"))
    parts.append(line(area.left, area.bottom, area.right, area.bottom, "axis"))
    middle = (area.left + area.right) / 2
    parts.append(text(x_label, middle, height - 6, text_anchor="middle", class_="label"))
    turned = f"translate(10 {(area.top + area.bottom) / 2:.1f}) rotate(-90)"
    parts.append(text(y_label, 0, 0, text_anchor="middle", class_="label", transform=turned))
    return area, group(*parts)

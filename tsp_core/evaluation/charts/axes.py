"""Axes: scales, ticks, grid, labels and the legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tsp_core.evaluation.charts.svg import CHARACTER_WIDTH, element, group, line, text

WIDTH, HEIGHT = 400, 270
"""Size of a chart in pixels; a narrow phone shows it at its own size."""

_LEGEND_LINE = 17
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 40

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


def plain_tick(value: float) -> str:
    """Write a tick with as few digits as it needs."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


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


def rounded_range(values: Sequence[float], *, include_zero: bool = False) -> tuple[float, float]:
    """The range of finite values, widened a little; never empty."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if include_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return (low if include_zero and low == 0 else low - margin, high + margin)


def legend(keys: Sequence[Key], width: float = WIDTH) -> tuple[Markup, float]:
    """Draw a legend over the chart; returns it and its height."""
    drawn: list[Markup] = []
    x, y = float(_LEFT), float(_TOP)
    for key in keys:
        needed = 22 + CHARACTER_WIDTH * len(key.name)
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
        drawn.append(text(key.name, x + 19, y + 4))
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

    Returns:
        Where data go, and the markup to put before them.
    """
    over, legend_height = legend(keys)
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
    for value in ticks_between(*x_range) if x_ticks is None else x_ticks:
        if x_grid:
            parts.append(line(area.x(value), area.top, area.x(value), area.bottom, "grid"))
        parts.append(text(x_tick(value), area.x(value), area.bottom + 16, text_anchor="middle"))
    parts.append(line(area.left, area.bottom, area.right, area.bottom, "axis"))
    middle = (area.left + area.right) / 2
    parts.append(text(x_label, middle, height - 6, text_anchor="middle", class_="label"))
    turned = f"translate(10 {(area.top + area.bottom) / 2:.1f}) rotate(-90)"
    parts.append(text(y_label, 0, 0, text_anchor="middle", class_="label", transform=turned))
    return area, group(*parts)

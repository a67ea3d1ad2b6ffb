"""Charts of figures: lines, bars, points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.axes import (
    HEIGHT,
    WIDTH,
    Area,
    FormatTick,
    Key,
    frame,
    plain_tick,
    rounded_range,
    share_tick,
)
from tsp_core.evaluation.charts.svg import colour, element, line, number, text

_MAX_MARKERS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """A line: x and y are float [N]; values that are not finite interrupt it."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    colour: int
    dashed: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    file: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    shares: bool = False,
    x_shares: bool = False,
    mark_x: float | None = None,
) -> Chart:
    """Draw lines over a common axis.

    Args:
        series: The lines.
        file: Name of the picture's file.
        title: Heading.
        description: What is seen, in words.
        x_label: Of the axis, with its unit.
        y_label: Likewise.
        x_range: Of the axis; default by the values.
        y_range: Likewise.
        x_ticks: Values that are written.
        shares: Write y as per cent.
        x_shares: Write x as per cent.
        mark_x: A value to draw a vertical line at.
    """
    y_tick: FormatTick = share_tick if shares else plain_tick
    area, drawn = frame(
        x_range=x_range or _extent([one.x for one in series]),
        y_range=y_range or rounded_range([float(y) for one in series for y in one.y]),
        x_label=x_label,
        y_label=y_label,
        x_ticks=x_ticks,
        y_tick=y_tick,
        x_tick=share_tick if x_shares else plain_tick,
        keys=[Key(name=s.name, colour=colour(s.colour), dashed=s.dashed) for s in series],
    )
    parts = [drawn]
    if mark_x is not None:
        parts.append(line(area.x(mark_x), area.top, area.x(mark_x), area.bottom, "mark"))
    parts += [_line(area, one) for one in series]
    return Chart(
        file=file,
        title=title,
        description=description,
        body=Markup("").join(parts),
        width=WIDTH,
        height=area.chart_height,
    )


def bar_chart(
    values: Sequence[Sequence[float | None]],
    *,
    names: Sequence[str],
    groups: Sequence[tuple[str, str]],
    file: str,
    title: str,
    description: str,
    y_label: str,
    colours: Sequence[int],
) -> Chart:
    """Draw groups of bars, shares from zero.

    Args:
        values: A row per series and a column per group; None is written as a dash.
        names: Of the series.
        groups: Two lines of text under each group.
        file: Name of the picture's file.
        title: Heading.
        description: What is seen, in words.
        y_label: Of the axis.
        colours: Index of each series' colour.
    """
    highest = max([value for row in values for value in row if value is not None], default=1.0)
    area, drawn = frame(
        x_range=(0.0, float(len(groups))),
        y_range=(0.0, max(highest * 1.1, 0.01)),
        x_label="",
        y_label=y_label,
        x_ticks=(),
        y_tick=share_tick,
        keys=[Key(name=name, colour=colour(c)) for name, c in zip(names, colours, strict=True)],
    )
    parts = [drawn]
    width = 0.76 / len(values)
    for column, (first, second) in enumerate(groups):
        middle = area.x(column + 0.5)
        parts.append(text(first, middle, area.bottom + 16, text_anchor="middle"))
        parts.append(text(second, middle, area.bottom + 30, text_anchor="middle", class_="faint"))
        for row, series in enumerate(values):
            left = area.x(column + 0.12 + row * width)
            right = area.x(column + 0.12 + (row + 0.92) * width)
            parts.append(_bar(area, left, right, series[column], colours[row]))
    return Chart(
        file=file,
        title=title,
        description=description,
        body=Markup("").join(parts),
        width=WIDTH,
        height=area.chart_height,
    )


def scatter_chart(
    points: NDArray[np.float64],
    groups: Sequence[tuple[str, str, NDArray[np.bool_]]],
    *,
    file: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    max_keys: int = 9,
) -> Chart:
    """Draw points [M, 2] in groups of name, class of colour, and mask [M], the first undermost."""
    area, drawn = frame(
        x_range=rounded_range(points[:, 0].tolist()),
        y_range=rounded_range(points[:, 1].tolist()),
        x_label=x_label,
        y_label=y_label,
        keys=[Key(name=name, colour=class_) for name, class_, _ in groups[:max_keys]],
        height=HEIGHT + 60,
        x_grid=True,
    )
    parts = [drawn]
    for _, class_, mask in groups:
        dots = "".join(f"M{area.x(x):.1f} {area.y(y):.1f}h0" for x, y in points[mask])
        if dots:
            parts.append(element("path", d=dots, class_=f"dots {class_}"))
    return Chart(
        file=file,
        title=title,
        description=description,
        body=Markup("").join(parts),
        width=WIDTH,
        height=area.chart_height,
    )


def _bar(area: Area, left: float, right: float, value: float | None, index: int) -> Markup:
    if value is None:
        dash = "\N{EN DASH}"
        return text(dash, (left + right) / 2, area.bottom - 4, text_anchor="middle", class_="faint")
    height = max(area.bottom - area.y(value), 0.75)
    return element(
        "rect",
        x=left,
        y=area.bottom - height,
        width=right - left,
        height=height,
        class_=f"fill {colour(index)}",
    )


def _line(area: Area, series: Series) -> Markup:
    known = np.isfinite(series.y)
    steps: list[str] = []
    marks: list[Markup] = []
    for position in np.flatnonzero(known):
        x, y = area.x(float(series.x[position])), area.y(float(series.y[position]))
        starts = position == 0 or not known[position - 1]
        steps.append(f"{'M' if starts else 'L'}{number(x)} {number(y)}")
        marks.append(element("circle", cx=x, cy=y, r=2.4, class_=f"fill {colour(series.colour)}"))
    dash = "5 4" if series.dashed else None
    path = element(
        "path", d="".join(steps), class_=f"line {colour(series.colour)}", stroke_dasharray=dash
    )
    return path + (Markup("").join(marks) if len(marks) <= _MAX_MARKERS else Markup(""))


def _extent(values: Sequence[NDArray[Any]]) -> tuple[float, float]:
    every = np.concatenate([np.asarray(value, dtype=np.float64) for value in values])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)

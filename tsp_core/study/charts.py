"""Charts of a study: every variant with its spread, and every single run as a dot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tsp_core.evaluation.blocks import Chart, Charts
from tsp_core.evaluation.charts.axes import (
    WIDTH,
    Area,
    fitting_ticks,
    rounded_range,
    share_tick,
)
from tsp_core.evaluation.charts.plots import Series, bar_chart, line_chart
from tsp_core.evaluation.charts.svg import NUM_COLOURS, colour, element, line, shortened_names, text
from tsp_core.study.figures import MAIN, Figure, length_figures, threshold_figures
from tsp_core.study.results import StudyResult, VariantResult

_ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 24, 104, 16, 8, 26
_MAX_NAME = 15


def main_charts(result: StudyResult) -> Charts:
    """Draw the headline figures: mean, standard deviation and single runs of each variant."""
    shown = [item for item in MAIN if any(item.key in v.spreads for v in result.variants)]
    return Charts(
        charts=tuple(_spread_chart(result.variants, figure) for figure in shown),
        title="Means, spreads and single runs",
        note="Stroke: mean over the seeds. Bar: one standard deviation to either side. Dots: runs.",
    )


def threshold_chart(result: StudyResult) -> Chart:
    """Draw the detector's mAP over the overlap that a detection must have."""
    shown = threshold_figures({key: None for v in result.variants for key in v.spreads})
    tiou = np.array([float(figure.key.removeprefix("map@")) for figure in shown])
    return line_chart(
        [
            Series(
                name=variant.name,
                x=tiou,
                y=_means(variant, shown),
                colour=index,
                dashed=index // NUM_COLOURS % 2 == 1,  # where the colours begin again
            )
            for index, variant in enumerate(result.variants)
        ],
        file="study_overlap.svg",
        title="mAP by overlap",
        description="Mean over the seeds of the detector's mAP at each overlap, by variant",
        x_label="tIoU",
        y_label="mAP",
        x_ticks=tiou.tolist(),
        shares=True,
    )


def length_chart(result: StudyResult) -> Chart:
    """Draw the detector's mAP over the length of the actions, whose bins all runs share."""
    shown = length_figures(result.bins or (), "map")
    titles = [figure.title.rstrip(")").rpartition(" (") for figure in shown]
    means = [_means(variant, shown).tolist() for variant in result.variants]
    return bar_chart(
        [[value if np.isfinite(value) else None for value in row] for row in means],
        names=[variant.name for variant in result.variants],
        groups=[(lengths, f"{count} actions") for lengths, _, count in titles],
        file="study_length.svg",
        title="mAP by length of the action",
        description="Mean over the seeds of the detector's mAP by length of the action, by variant",
        y_label="mAP",
        colours=range(len(result.variants)),
    )


def _means(variant: VariantResult, shown: Sequence[Figure]) -> NDArray[np.float64]:
    spreads = [variant.spreads.get(figure.key) for figure in shown]
    return np.array([np.nan if spread is None else spread.mean for spread in spreads])


def _spread_chart(variants: Sequence[VariantResult], figure: Figure) -> Chart:
    """One row per variant over a common axis of shares."""
    spreads = [variant.spreads.get(figure.key) for variant in variants]
    ends = [end for spread in spreads if spread is not None for end in (spread.low, spread.high)]
    runs = [
        run.figures[figure.key] for v in variants for run in v.runs if figure.key in run.figures
    ]
    height = _TOP + _ROW * len(variants) + _BOTTOM
    area = Area(
        left=_LEFT,
        top=_TOP,
        right=WIDTH - _RIGHT,
        bottom=height - _BOTTOM,
        x_range=rounded_range([*ends, *runs]),
        y_range=(float(len(variants)), 0.0),
    )
    parts = [_axis(area)]
    names = shortened_names([variant.name for variant in variants], _MAX_NAME)
    parts += [
        _variant_row(area, row, name, variant, figure)
        for row, (name, variant) in enumerate(zip(names, variants, strict=True))
    ]
    return Chart(
        file=f"study_{figure.key}.svg",
        title=figure.title,
        description=f"{figure.title} of each variant: mean, standard deviation and every run",
        body=Markup("").join(parts),
        width=WIDTH,
        height=height,
    )


def _axis(area: Area) -> Markup:
    parts = []
    pixels = area.right - area.left
    for value in fitting_ticks(*area.x_range, pixels=pixels, written=share_tick):
        parts.append(line(area.x(value), area.top, area.x(value), area.bottom, "grid"))
        parts.append(text(share_tick(value), area.x(value), area.bottom + 16, text_anchor="middle"))
    return Markup("").join(parts)


def _variant_row(
    area: Area, row: int, shown: str, variant: VariantResult, figure: Figure
) -> Markup:
    y = area.y(row + 0.5)
    name = text(shown, area.left - 8, y + 4, text_anchor="end")
    spread = variant.spreads.get(figure.key)
    if spread is None:
        return name
    left, right = area.x(spread.low), area.x(spread.high)
    bar = element(
        "rect",
        x=left,
        y=y - 4,
        width=max(right - left, 0.5),
        height=8,
        class_=f"area {colour(row)}",
    )
    mean = area.x(spread.mean)
    stroke = element("rect", x=mean - 1, y=y - 8, width=2, height=16, class_=f"fill {colour(row)}")
    values = [run.figures[figure.key] for run in variant.runs if figure.key in run.figures]
    dots = [
        element("circle", cx=area.x(value), cy=y, r=2.5, class_=f"fill {colour(row)}")
        for value in values
    ]
    return Markup("").join([name, bar, stroke, *dots])

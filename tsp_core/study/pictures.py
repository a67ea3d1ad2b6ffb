"""Pictures of a study: every variant with its spread, and every single run as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tsp_core.evaluation.blocks import Picture
from tsp_core.evaluation.pictures import png_bytes
from tsp_core.study import figures
from tsp_core.study.figures import Figure
from tsp_core.study.results import StudyResult, VariantResult

_STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
_COLORS = ("#64748b", "#b45309", "#0f766e", "#1d4ed8", "#9333ea", "#be123c", "#4d7c0f", "#0e7490")


def main_picture(result: StudyResult) -> Picture:
    """Draw the headline figures: mean, standard deviation and single runs of each variant."""
    shown = [figure for figure in figures.MAIN if _have(result, figure)]
    with mpl.rc_context(_STYLE):
        height = 0.9 + 0.34 * len(result.variants)
        canvas = Canvas(figsize=(9.5, height), dpi=110, layout="constrained")
        panels = canvas.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
        for axes, figure in zip(panels, shown, strict=False):
            _draw_points(axes, result.variants, figure)
        return Picture(
            file="study_main.png",
            description="Headline figures in per cent: mean ± standard deviation (bar), and every "
            "run (dots)",
            png=png_bytes(canvas),
        )


def threshold_picture(result: StudyResult) -> Picture:
    """Draw the detector's mAP over the overlap that a detection must have."""
    shown = figures.threshold_figures(dict.fromkeys(_keys(result)))
    labels = [figure.title.removeprefix("tIoU ") for figure in shown]
    return Picture(
        file="study_overlap.png",
        description="mAP of the detector by overlap (tIoU), in per cent; the bands are ± one "
        "standard deviation",
        png=_lines(result, shown, labels, "tIoU", "mAP (%)"),
    )


def length_picture(result: StudyResult) -> Picture:
    """Draw the detector's mAP over the length of the actions."""
    shown = figures.length_figures(result.metrics, "map")
    labels = [figure.title.rpartition(" (")[0] for figure in shown]
    return Picture(
        file="study_length.png",
        description="mAP of the detector by length of the action, in per cent; the bands are ± "
        "one standard deviation",
        png=_lines(result, shown, labels, "length of the action", "mAP (%)"),
    )


def _draw_points(axes: Axes, variants: Sequence[VariantResult], figure: Figure) -> None:
    for row, (variant, color) in enumerate(zip(variants, _cycle(len(variants)), strict=True)):
        spread = variant.spreads.get(figure.key)
        if spread is None:
            continue
        values = [
            100 * run.figures[figure.key] for run in variant.runs if figure.key in run.figures
        ]
        axes.plot([100 * spread.low, 100 * spread.high], [row, row], color=color, lw=5, alpha=0.35)
        axes.plot(values, [row] * len(values), "o", color=color, ms=3.5, alpha=0.9)
        axes.plot([100 * spread.mean], [row], "|", color=color, ms=13, mew=2)
    axes.set_title(figure.title, fontsize=9)
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _lines(
    result: StudyResult, shown: Sequence[Figure], labels: Sequence[str], x: str, y: str
) -> bytes:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(7.5, 3.2), dpi=110, layout="constrained")
        axes = canvas.subplots()
        for variant, color in zip(result.variants, _cycle(len(result.variants)), strict=True):
            places = [i for i, figure in enumerate(shown) if figure.key in variant.spreads]
            spreads = [variant.spreads[shown[place].key] for place in places]
            means = [100 * spread.mean for spread in spreads]
            axes.plot(places, means, "o-", color=color, ms=3.5, lw=1.4, label=variant.name)
            lows = [100 * spread.low for spread in spreads]
            highs = [100 * spread.high for spread in spreads]
            axes.fill_between(places, lows, highs, color=color, alpha=0.12, lw=0)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color="#e5e5e5", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return png_bytes(canvas)


def _cycle(count: int) -> list[str]:
    return [_COLORS[index % len(_COLORS)] for index in range(count)]


def _have(result: StudyResult, figure: Figure) -> bool:
    return any(figure.key in variant.spreads for variant in result.variants)


def _keys(result: StudyResult) -> list[str]:
    return [key for variant in result.variants for key in variant.spreads]

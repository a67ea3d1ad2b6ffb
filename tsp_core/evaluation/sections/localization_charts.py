"""The curves of localization: mAP by overlap, precision and recall, proposals, lengths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tsp_core.config import LocalizerName
from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.plots import Series, bar_chart, line_chart
from tsp_core.evaluation.detection.average_precision import precision_recall
from tsp_core.evaluation.detection.matching import Matches
from tsp_core.evaluation.evidence import HEADLINE
from tsp_core.evaluation.scoring import TIOU, DetectionScores, Protocol

TITLES: Mapping[LocalizerName, str] = {
    "detector": "Reference detector",
    "heads": "Own heads",
    "probes": "Linear probes",
}
"""Localizers for people."""

_CURVES: Mapping[Protocol, tuple[float, ...]] = {
    "activitynet": (0.5, 0.75, 0.95),
    "thumos14": (0.3, 0.5, 0.7),
}


def localization_charts(
    scores: Mapping[LocalizerName, DetectionScores], headline: LocalizerName, protocol: Protocol
) -> tuple[Chart, ...]:
    """Draw mAP by overlap, precision and recall, AR@AN, and mAP by length.

    Args:
        scores: By localizer; each has its curve.
        headline: The localizer of the precision-recall curves.
        protocol: Whose thresholds.
    """
    colours = {name: index for index, name in enumerate(HEADLINE)}
    by_tiou = [
        Series(
            name=TITLES[name],
            x=np.array(TIOU[protocol]),
            y=score.average_precision[protocol].by_threshold,
            colour=colours[name],
        )
        for name, score in scores.items()
    ]
    by_number = [
        Series(
            name=TITLES[name],
            x=score.proposals.proposals_per_video,
            y=score.proposals.average_recall,
            colour=colours[name],
        )
        for name, score in scores.items()
    ]
    return (
        line_chart(
            by_tiou,
            file="map.svg",
            title="mAP by overlap",
            description="mAP by the overlap at which a detection counts as right.",
            x_label="tIoU threshold",
            y_label="mAP",
            y_range=(0.0, max(float(one.y.max()) for one in by_tiou) * 1.08 + 0.01),
            shares=True,
        ),
        _precision_recall_chart(scores[headline].matches[protocol], headline, protocol),
        line_chart(
            by_number,
            file="proposals.svg",
            title="Recall of proposals (AR@AN)",
            description="Average recall over tIoU 0.5:0.05:0.95 by the average number of proposals "
            "per video; areas "
            + ", ".join(f"{TITLES[n]} {100 * s.proposals.area:.1f} %" for n, s in scores.items())
            + ".",
            x_label="proposals per video",
            y_label="average recall",
            x_range=(0.0, 100.0),
            y_range=(0.0, 1.0),
            shares=True,
        ),
        _length_chart(scores, colours),
    )


def _precision_recall_chart(matches: Matches, headline: LocalizerName, protocol: Protocol) -> Chart:
    grid = np.linspace(0.0, 1.0, 101)
    series = []
    for colour, tiou in enumerate(_CURVES[protocol]):
        index = int(np.abs(np.array(matches.tiou_thresholds) - tiou).argmin())
        curve = _mean_precision(matches, index, grid)
        series.append(Series(name=f"tIoU {tiou:g}", x=grid, y=curve, colour=colour))
    return line_chart(
        series,
        file="precision_recall.svg",
        title="Precision and recall",
        description=f"Interpolated precision by recall, mean over the classes. {TITLES[headline]}.",
        x_label="recall",
        y_label="precision",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        shares=True,
        x_shares=True,
    )


def _mean_precision(
    matches: Matches, threshold_index: int, grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolated precision at the recalls of a grid, mean over the classes with ground truth."""
    curves = []
    for label in np.unique(matches.ground_truth.label_indices):
        curve = precision_recall(matches, int(label), threshold_index=threshold_index)
        highest = np.maximum.accumulate(curve.precision[::-1])[::-1]
        first = np.searchsorted(curve.recall, grid - 1e-12, side="left")
        curves.append(np.append(highest, 0.0)[first])
    return np.asarray(np.mean(curves, axis=0))


def _length_chart(
    scores: Mapping[LocalizerName, DetectionScores], colours: Mapping[LocalizerName, int]
) -> Chart:
    first = next(iter(scores.values())).by_length["quantiles"]
    return bar_chart(
        [
            [item.average_map for item in score.by_length["quantiles"].scores]
            for score in scores.values()
        ],
        names=[TITLES[name] for name in scores],
        groups=[
            (bounds, f"{item.num_instances:,} actions")
            for bounds, item in zip(first.bins.ranges(), first.scores, strict=True)
        ],
        file="length.svg",
        title="mAP by length of the action",
        description="Average mAP (normalised as by DETAD) of the quarters of the actions, by "
        "length.",
        y_label="average mAP",
        colours=[colours[name] for name in scores],
    )

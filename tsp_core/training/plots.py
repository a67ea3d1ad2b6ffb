"""The picture of losses and accuracies over the epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsp_core.training.job import CurvePoint, MetricRow

_COLOURS = {"total": "#333333", "action": "#c2410c", "region": "#1d4ed8", "mean": "#333333"}
_STYLES: dict[str, dict[str, Any]] = {
    "step": {"linewidth": 0.8, "alpha": 0.35},
    "train": {"linestyle": (0, (4, 2)), "marker": "o", "markersize": 3},
    "valid": {"linestyle": "solid", "marker": "o", "markersize": 3},
}


def draw_curves(rows: Sequence[MetricRow], *, best_epoch: int) -> bytes:
    """Draw losses (left) and accuracies (right) over the epochs.

    Dashed lines are training, full lines validation; the best epoch is marked.

    Args:
        rows: Metrics of all epochs.
        best_epoch: Counted from 0.

    Returns:
        A PNG picture; equal rows give equal bytes.
    """
    points = [CurvePoint(row.epoch + 1, row.phase, row.name, row.value) for row in rows]
    return draw_points(points, best_epoch=best_epoch)


def draw_points(points: Sequence[CurvePoint], *, best_epoch: int | None = None) -> bytes:
    """Draw the curves of a training that may be under way, as `draw_curves` does.

    The loss of single steps is a thin line behind the others.

    Args:
        points: What is known so far.
        best_epoch: Counted from 0; None while it is open.

    Returns:
        A PNG picture.
    """
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(1, 2)
    _draw(losses, points, {"loss": "total", "loss_action": "action", "loss_region": "region"})
    _draw(
        accuracies,
        points,
        {"accuracy_mean": "mean", "accuracy_action": "action", "accuracy_region": "region"},
    )
    losses.set_ylabel("loss")
    accuracies.set_ylabel("accuracy")
    accuracies.set_ylim(-0.02, 1.02)
    if best_epoch is not None:
        for axes in (losses, accuracies):
            axes.axvline(best_epoch + 1, color="#a3a3a3", linewidth=1, zorder=0)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, points: Sequence[CurvePoint], labels: dict[str, str]) -> None:
    single_head = sum(any(point.name == name for point in points) for name in labels) <= 2
    for name, label in labels.items():
        if single_head and label in ("total", "mean"):
            continue
        for phase, style in _STYLES.items():
            line = [
                (point.epochs, point.value)
                for point in points
                if point.name == name and point.phase == phase
            ]
            if line:
                axes.plot(
                    *zip(*line, strict=True),
                    color=_COLOURS[label],
                    label=f"{label}, {phase}",
                    **style,
                )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#e5e5e5", linewidth=0.5)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)

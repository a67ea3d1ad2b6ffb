"""The picture of losses and accuracies over the epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsp_core.training.job import MetricRow

_COLOURS = {"total": "#333333", "action": "#c2410c", "region": "#1d4ed8", "mean": "#333333"}
_STYLES = {"train": (0, (4, 2)), "valid": "solid"}


def draw_curves(rows: Sequence[MetricRow], *, best_epoch: int) -> bytes:
    """Draw losses (left) and accuracies (right) over the epochs.

    Dashed lines are training, full lines validation; the best epoch is marked.

    Args:
        rows: Metrics of all epochs.
        best_epoch: Counted from 0.

    Returns:
        A PNG picture; equal rows give equal bytes.
    """
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(1, 2)
    _draw(losses, rows, {"loss": "total", "loss_action": "action", "loss_region": "region"})
    _draw(
        accuracies,
        rows,
        {"accuracy_mean": "mean", "accuracy_action": "action", "accuracy_region": "region"},
    )
    losses.set_ylabel("loss")
    accuracies.set_ylabel("accuracy")
    accuracies.set_ylim(-0.02, 1.02)
    for axes in (losses, accuracies):
        axes.axvline(best_epoch + 1, color="#a3a3a3", linewidth=1, zorder=0)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, rows: Sequence[MetricRow], labels: dict[str, str]) -> None:
    single_head = sum(any(row.name == name for row in rows) for name in labels) <= 2
    for name, label in labels.items():
        if single_head and label in ("total", "mean"):
            continue
        for phase, style in _STYLES.items():
            points = [
                (row.epoch + 1, row.value)
                for row in rows
                if row.name == name and row.phase == phase
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=_COLOURS[label],
                    linestyle=style,
                    marker="o",
                    markersize=3,
                    label=f"{label}, {phase}",
                )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#e5e5e5", linewidth=0.5)
    axes.legend(frameon=False, fontsize=8)

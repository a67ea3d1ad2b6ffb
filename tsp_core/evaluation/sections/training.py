"""How the pretraining went: curves, and the figures of each epoch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tsp_core.evaluation.blocks import (
    Block,
    Chart,
    Charts,
    Column,
    ColumnKind,
    Section,
    Table,
    Text,
)
from tsp_core.evaluation.charts.plots import Series, line_chart

_Values = dict[tuple[int, str, str], float]
"""By epoch, phase and name."""

_VALUES: tuple[tuple[str, str, str, ColumnKind], ...] = (
    ("train", "loss", "Training loss", "number"),
    ("valid", "loss", "Validation loss", "number"),
    ("valid", "accuracy_action", "Action accuracy", "share"),
    ("valid", "accuracy_region", "Region accuracy", "share"),
    ("valid", "accuracy_mean", "Mean accuracy", "share"),
)


def training_section(metrics: pa.Table, *, best_epoch: int) -> Section:
    """Describe the pretraining.

    Args:
        metrics: Of the schema METRICS.
        best_epoch: The epoch whose checkpoint was exported, from 0.
    """
    values = _by_epoch(metrics)
    blocks: tuple[Block, ...] = (
        Text(
            text=f"Epoch {best_epoch + 1} is the best: it has the highest mean of the heads' "
            "validation accuracies. Its checkpoint is the one that was exported."
        ),
        Charts(
            charts=(*_curves(values, "loss", best_epoch), *_curves(values, "accuracy", best_epoch))
        ),
        _epoch_table(values),
    )
    return Section(key="training", title="Pretraining", blocks=blocks)


def _curves(values: _Values, kind: str, best_epoch: int) -> list[Chart]:
    """Lines of the losses, or of the accuracies, over the epochs; none where none were measured."""
    epochs = np.array(sorted({epoch for epoch, _, _ in values}))
    series = [
        Series(
            name=title,
            x=epochs + 1,
            y=np.array([values.get((epoch, phase, name), np.nan) for epoch in epochs.tolist()]),
            colour=colour,
        )
        for colour, (phase, name, title, _) in enumerate(
            item for item in _VALUES if item[1].startswith(kind)
        )
        if any((epoch, phase, name) in values for epoch in epochs.tolist())
    ]
    if not series:
        return []
    steps = max(1, -(-len(epochs) // 8))
    chart = line_chart(
        series,
        file=f"curves_{kind}.svg",
        title="Loss" if kind == "loss" else "Validation accuracy",
        description=f"The {kind} of each epoch; the line marks the best epoch.",
        x_label="epoch",
        y_label=kind,
        x_ticks=(epochs[::steps] + 1).tolist(),
        shares=kind == "accuracy",
        mark_x=best_epoch + 1,
    )
    return [chart]


def _by_epoch(metrics: pa.Table) -> _Values:
    """The value of each epoch, phase and name; of several in an epoch the last."""
    rows = metrics.to_pylist()
    return {(row["epoch"], row["phase"], row["name"]): row["value"] for row in rows}


def _epoch_table(values: _Values) -> Table:
    known = {(phase, name) for _, phase, name in values}
    shown = [item for item in _VALUES if item[:2] in known]
    rows = tuple(
        (epoch + 1, *(values.get((epoch, phase, name)) for phase, name, _, _ in shown))
        for epoch in sorted({epoch for epoch, _, _ in values})
    )
    columns = (
        Column(name="Epoch", kind="count"),
        *(Column(name=title, kind=kind) for _, _, title, kind in shown),
    )
    return Table(title="Epochs", columns=columns, rows=rows)

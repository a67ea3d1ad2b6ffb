"""How the pretraining went: curves, and the figures of each epoch."""

from __future__ import annotations

import pyarrow as pa

from tsp_core.evaluation.blocks import Block, Column, ColumnKind, Picture, Section, Table, Text

_VALUES: tuple[tuple[str, str, str, ColumnKind], ...] = (
    ("train", "loss", "Training loss", "number"),
    ("valid", "loss", "Validation loss", "number"),
    ("valid", "accuracy_action", "Action accuracy", "share"),
    ("valid", "accuracy_region", "Region accuracy", "share"),
    ("valid", "accuracy_mean", "Mean accuracy", "share"),
)


def training_section(metrics: pa.Table, *, best_epoch: int, curves_png: bytes) -> Section:
    """Describe the pretraining.

    Args:
        metrics: Of the schema METRICS.
        best_epoch: The epoch whose checkpoint was exported, from 0.
        curves_png: Picture of losses and accuracies.
    """
    blocks: tuple[Block, ...] = (
        Text(
            text=f"Epoch {best_epoch + 1} is the best: it has the highest mean of the heads' "
            "validation accuracies. Its checkpoint is the one that was exported."
        ),
        Picture(
            file="curves.png",
            description="Losses and accuracies over the epochs.",
            png=curves_png,
        ),
        _epoch_table(metrics),
    )
    return Section(key="training", title="Pretraining", blocks=blocks)


def _epoch_table(metrics: pa.Table) -> Table:
    values: dict[tuple[int, str, str], float] = {}
    for row in metrics.to_pylist():  # in order of iterations: the last of an epoch stays
        values[row["epoch"], row["phase"], row["name"]] = row["value"]
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

"""What a finished training run publishes: files and figures, from its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tsp_core import storage
from tsp_core.artifacts import fingerprint_of
from tsp_core.schemas import METRICS, table_from_rows, write_table
from tsp_core.training.job import BEST_FILE, TrainingResult
from tsp_core.training.plots import draw_curves


def result_files(folder: Path, result: TrainingResult) -> dict[str, Path | bytes]:
    """The artifact's files by name; the checkpoint is in the run's folder already."""
    table = folder / "metrics.parquet"
    rows = [row._asdict() for row in result.rows]
    write_table(str(table), table_from_rows(rows, METRICS), METRICS)
    names = METRICS.fields.names
    lines = [",".join(names), *(",".join(map(str, row)) for row in result.rows)]
    return {
        "best.pth": folder / BEST_FILE,
        "metrics.parquet": table,
        "metrics.csv": ("\n".join(lines) + "\n").encode(),
        "training.json": json.dumps(describe(result), indent=1).encode(),
        "curves.png": draw_curves(result.rows, best_epoch=result.best_epoch),
    }


def checkpoint_digest(folder: Path) -> str:
    """Hash of the checkpoint: what follows depends neither on the metrics nor on the picture."""
    return fingerprint_of(storage.sha256_of_file(folder / BEST_FILE))


def describe(result: TrainingResult) -> dict[str, Any]:
    """Content of `training.json`; epochs count from 0.

    Every epoch's figures by phase, and the videos that could not be read, if any.
    """
    epochs: list[dict[str, Any]] = []
    for row in result.rows:
        if row.epoch == len(epochs):
            epochs.append({"epoch": row.epoch, "train": {}, "valid": {}})
        epochs[row.epoch][row.phase][row.name] = row.value
    described: dict[str, Any] = {"best_epoch": result.best_epoch, "epochs": epochs}
    if result.quarantined:
        described["quarantined"] = [video._asdict() for video in result.quarantined]
    return described


def summarise(result: TrainingResult) -> dict[str, Any]:
    """Figures for people: the best epoch (from 1), its validation loss and accuracies."""
    best: dict[str, float] = describe(result)["epochs"][result.best_epoch]["valid"]
    accuracies = {name: value for name, value in best.items() if name.startswith("accuracy_")}
    summary = {"best_epoch": result.best_epoch + 1, "loss": best["loss"], **accuracies}
    return summary | ({"quarantined": len(result.quarantined)} if result.quarantined else {})

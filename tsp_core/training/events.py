"""Writes the metrics as TensorBoard events, beside the run's checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tsp_core import storage
from tsp_core.training.job import MetricRow


def write_events(rows: Sequence[MetricRow], folder_uri: str) -> None:
    """Write all metrics so far as one events file, replacing the one before.

    Args:
        rows: Metrics of the epochs that are done.
        folder_uri: Folder for `tensorboard --logdir`.
    """
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="tsp-events-") as folder:
        with SummaryWriter(folder) as writer:
            for row in rows:
                tag = f"{row.name}/{row.phase}"
                writer.add_scalar(tag, row.value, row.epoch + 1)
        written = next(Path(folder).glob("events.*"))
        storage.upload(written, storage.join(folder_uri, "events.out.tfevents.0.tsp"))

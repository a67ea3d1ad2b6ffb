"""What detection metrics compare: annotated instances and detections, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core.schemas import DETECTIONS


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """Segments of videos, with their classes; row i of every column is one segment.

    Attributes:
        videos: Names, object or string [N].
        label_indices: int64 [N]; -1 for segments of no class (ambiguous ones).
        t_start: float64 [N], seconds, inclusive.
        t_end: float64 [N], seconds, exclusive.

    Raises:
        ValueError: The columns differ in length, or a number is not finite.
    """

    videos: NDArray[Any]
    label_indices: NDArray[np.int64]
    t_start: NDArray[np.float64]
    t_end: NDArray[np.float64]

    def __post_init__(self) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}; give one row per segment")
        for name, column in columns.items():
            if name == "videos":
                continue
            wrong = np.flatnonzero(~np.isfinite(column))
            if len(wrong):
                row = int(wrong[0])
                raise ValueError(
                    f"{name}[{row}]: {column[row]} for video {self.videos[row]!r}; "
                    "every time and score must be finite"
                )

    def __len__(self) -> int:
        return len(self.videos)

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Self:
        """The rows of an index array or a mask, in its order."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def lengths_seconds(self) -> NDArray[np.float64]:
        """Length of each segment, float64 [N]."""
        return self.t_end - self.t_start


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections(Instances):
    """Detected segments; `scores` is float64 [N], higher is surer."""

    scores: NDArray[np.float64]


def instances_from_segments(segments: pa.Table, *, subset: str, kind: str = "action") -> Instances:
    """Take annotated segments of one subset and kind.

    Segments without a positive length are left out: they can match nothing (DETAD,
    `action_detector_diagnosis.py`, leaves them out too).

    Args:
        segments: Of the schema SEGMENTS.
        subset: Name of the subset.
        kind: "action", "background" or "ambiguous".
    """
    chosen = (
        (pc.field("subset") == subset)
        & (pc.field("kind") == kind)
        & (pc.field("t_end") > pc.field("t_start"))
    )
    return Instances(**_columns(segments.filter(chosen)))


def detections_from_table(table: pa.Table, *, localizer: str) -> Detections:
    """Take the detections of one localizer from a table of the schema DETECTIONS."""
    table = table.filter(pc.field("localizer") == localizer)
    scores = np.asarray(table["score"].to_numpy(), dtype=np.float64)
    return Detections(**_columns(table), scores=scores)


def detections_table(detections: Detections, *, localizer: str) -> pa.Table:
    """Build a table of the schema DETECTIONS, rows in the given order."""
    schema = DETECTIONS.with_metadata()
    columns: dict[str, Any] = {
        "localizer": pa.repeat(localizer, len(detections)),
        "video": pa.array(detections.videos.tolist(), pa.string()),
        "label_index": pa.array(detections.label_indices.astype(np.int32)),
        "t_start": pa.array(detections.t_start),
        "t_end": pa.array(detections.t_end),
        "score": pa.array(detections.scores),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Join detections in the given order; none give an empty one."""
    parts = (no_detections(), *parts)
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Detections)
    }
    return Detections(**columns)


def no_detections() -> Detections:
    """Detections with no row."""
    return Detections(
        videos=np.empty(0, dtype=object),
        label_indices=np.empty(0, dtype=np.int64),
        t_start=np.empty(0),
        t_end=np.empty(0),
        scores=np.empty(0),
    )


def without_duplicates(instances: Instances, *, tolerance_seconds: float = 1e-3) -> Instances:
    """Drop annotations that repeat an earlier one: same video, class, start and end.

    ActionFormer does this to its training annotations (`libs/datasets/data_utils.py`) and OpenTAD
    to the annotations that it evaluates on (`opentad/evaluations/builder.py`), both with a
    tolerance of 1 ms; ActivityNet's code does not.
    """
    keys = group_keys(instances.videos, instances.label_indices)
    order = np.lexsort((np.arange(len(keys)), keys))
    keep = np.ones(len(keys), dtype=bool)
    for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        for position, row in enumerate(rows):
            earlier = rows[:position][keep[rows[:position]]]
            same = np.abs(instances.t_start[earlier] - instances.t_start[row]) <= tolerance_seconds
            same &= np.abs(instances.t_end[earlier] - instances.t_end[row]) <= tolerance_seconds
            keep[row] = not same.any()
    return instances.take(keep)


def group_keys(
    videos: NDArray[Any], label_indices: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Number the videos, or the pairs of video and class: equal pairs have equal numbers."""
    _, numbers = np.unique(videos.astype(str), return_inverse=True)
    if label_indices is None or len(numbers) == 0:
        return numbers.astype(np.int64)
    classes = label_indices - label_indices.min()
    return np.asarray(numbers * (classes.max() + 1) + classes, dtype=np.int64)


def tiou_matrix(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    other_starts: NDArray[np.float64],
    other_ends: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Temporal intersection over union of every segment with every other one.

    Segments without a positive length overlap nothing (the official code divides zero by zero and
    counts such a detection as right).

    Returns:
        float64 [N, M].
    """
    left = np.maximum(starts[:, None], other_starts[None])
    right = np.minimum(ends[:, None], other_ends[None])
    intersection = np.clip(right - left, 0, None)
    union = (ends - starts)[:, None] + (other_ends - other_starts)[None] - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(union), where=union > 0))


def _columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    return {
        "videos": np.array(table["video"].to_pylist(), dtype=object),
        "label_indices": np.asarray(table["label_index"].to_numpy(), dtype=np.int64),
        "t_start": np.asarray(table["t_start"].to_numpy(), dtype=np.float64),
        "t_end": np.asarray(table["t_end"].to_numpy(), dtype=np.float64),
    }

"""The released TSP ground-truth CSV: actions and background as rows, cut beforehand.

Its background rows are kept as they are; nothing is cut anew between its actions.
"""

from __future__ import annotations

from tsp_core.annotations.csv_rows import CsvRow, read_rows
from tsp_core.annotations.records import (
    AnnotatedSegment,
    AnnotatedVideo,
    group_by_video,
    number_cell,
    refuse,
    show,
    text_field,
)

ACTION, NO_ACTION = "Action", "No action"
"""Values of the column `temporal-region-label`."""

GROUND_TRUTH_COLUMNS = (
    "video-name",
    "t-start",
    "t-end",
    "action-label",
    "video-duration",
    "filename",
    "fps",
    "video-frames",
    "temporal-region-label",
)
"""All columns of the released files; the reader needs those of `_NEEDED`."""

_NEEDED = ("video-name", "t-start", "t-end", "action-label", "temporal-region-label")


def read(uri: str, subset: str | None) -> list[AnnotatedVideo]:
    """Read a released ground-truth CSV, which holds one subset.

    Raises:
        AnnotationError: A wrong header or row.
    """
    return group_by_video(
        (
            text_field(row.cells["video-name"], "video-name", uri, row.place),
            subset,
            _segment(uri, row),
        )
        for row in read_rows(uri, {name: (name,) for name in _NEEDED})
    )


def _segment(uri: str, row: CsvRow) -> AnnotatedSegment:
    region, label = row.cells["temporal-region-label"], row.cells["action-label"]
    if region not in (ACTION, NO_ACTION):
        raise refuse(
            uri,
            row.place,
            f"temporal-region-label {show(region)}: expected {ACTION!r} or {NO_ACTION!r}",
        )
    if region == NO_ACTION and label:
        raise refuse(
            uri, row.place, f"action-label {show(label)} in a row of {NO_ACTION!r}; leave it empty"
        )
    return AnnotatedSegment(
        kind="action" if region == ACTION else "background",
        label=text_field(label, "action-label", uri, row.place) if region == ACTION else None,
        start_seconds=number_cell(row.cells["t-start"], "t-start", uri, row.place),
        end_seconds=number_cell(row.cells["t-end"], "t-end", uri, row.place),
        file=uri,
        place=row.place,
    )

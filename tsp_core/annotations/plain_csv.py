"""Plain CSV: one action per row, in the columns video, label, t-start, t-end and maybe subset."""

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

COLUMNS = {
    "video": ("video", "video-name", "video-id", "name"),
    "label": ("label", "action-label", "class", "action"),
    "t-start": ("t-start", "start", "start-seconds", "start-time", "begin"),
    "t-end": ("t-end", "end", "end-seconds", "end-time"),
    "subset": ("subset", "split"),
}
"""The accepted header names of each column."""


def read(uri: str, subset: str | None) -> list[AnnotatedVideo]:
    """Read a plain CSV; rows of a video need not be together.

    Args:
        uri: The file.
        subset: The subset of rows that name none; a row that names another is an error.

    Raises:
        AnnotationError: A wrong header or row; a video in several subsets.
    """
    return group_by_video(
        (
            text_field(row.cells["video"], "video", uri, row.place),
            _row_subset(uri, row, subset),
            _segment(uri, row),
        )
        for row in read_rows(uri, COLUMNS, optional=("subset",))
    )


def _row_subset(uri: str, row: CsvRow, subset: str | None) -> str | None:
    own = row.cells["subset"] or None
    if own is not None and subset is not None and own != subset:
        raise refuse(
            uri,
            row.place,
            f"subset {show(own)}, but the configuration gives this file as {show(subset)}; give "
            "the path alone to use the file's own subsets",
        )
    return own or subset


def _segment(uri: str, row: CsvRow) -> AnnotatedSegment:
    return AnnotatedSegment(
        kind="action",
        label=text_field(row.cells["label"], "label", uri, row.place),
        start_seconds=number_cell(row.cells["t-start"], "t-start", uri, row.place),
        end_seconds=number_cell(row.cells["t-end"], "t-end", uri, row.place),
        file=uri,
        place=row.place,
    )

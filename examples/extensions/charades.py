"""An annotation format of one's own: the CSV files of Charades.

Each line is a video; its column `actions` reads `c092 11.90 21.20;c147 0.00 12.60` (class, start
and end in seconds). The files name no subset, so the configuration does:

    extensions: [charades.py]
    annotate:
      format: charades
      annotations: {training: Charades_v1_train.csv, validation: Charades_v1_test.csv}
"""

from __future__ import annotations

from tsp_core.annotations.csv_rows import CsvRow, read_rows
from tsp_core.annotations.records import (
    AnnotatedSegment,
    AnnotatedVideo,
    number_cell,
    refuse,
    show,
    text_field,
)
from tsp_core.annotations.registry import Format, register_format


def read(uri: str, subset: str | None) -> list[AnnotatedVideo]:
    """Read one file; a video without actions has no segments."""
    return [
        AnnotatedVideo(
            name=text_field(row.cells["id"], "id", uri, row.place),
            subset=subset,
            segments=tuple(_segment(item, uri, row) for item in _actions(row)),
            file=uri,
        )
        for row in read_rows(uri, {"id": ("id",), "actions": ("actions",)})
    ]


def _actions(row: CsvRow) -> list[str]:
    return [item for item in row.cells["actions"].split(";") if item.strip()]


def _segment(text: str, uri: str, row: CsvRow) -> AnnotatedSegment:
    parts = text.split()
    if len(parts) != 3:
        raise refuse(uri, row.place, f"actions: {show(text)}: expected 'CLASS START END'")
    return AnnotatedSegment(
        kind="action",
        label=parts[0],
        start_seconds=number_cell(parts[1], "start", uri, row.place),
        end_seconds=number_cell(parts[2], "end", uri, row.place),
        file=uri,
        place=row.place,
    )


register_format("charades", Format(read=read))

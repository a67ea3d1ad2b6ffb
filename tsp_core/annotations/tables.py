"""Arrow tables of segments and problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from tsp_core.annotations.judging import Problem
from tsp_core.annotations.segments import Segment
from tsp_core.schemas import PROBLEMS, SEGMENTS, table_from_rows

_REGIONS = {"action": 0, "background": 1, "ambiguous": -1}


def segments_table(segments: Sequence[Segment], classes: Sequence[str]) -> pa.Table:
    """Segments as the table `SEGMENTS`; `label_index` is the place in `classes`."""
    index = {label: position for position, label in enumerate(classes)}
    columns: dict[str, Sequence[Any]] = {
        "video": [segment.video for segment in segments],
        "subset": [segment.subset for segment in segments],
        "kind": [segment.kind for segment in segments],
        "label": [segment.label for segment in segments],
        "label_index": [
            -1 if segment.label is None else index[segment.label] for segment in segments
        ],
        "region": [_REGIONS[segment.kind] for segment in segments],
        "t_start": [segment.start_seconds for segment in segments],
        "t_end": [segment.end_seconds for segment in segments],
    }
    return pa.table(columns, schema=SEGMENTS.with_metadata())


def problems_table(problems: Sequence[Problem]) -> pa.Table:
    """Problems as the table `PROBLEMS`."""
    return table_from_rows([asdict(problem) for problem in problems], PROBLEMS)

"""Row groups of Parquet files: small where rows are long, so that a few rows can be read alone.

A row of the videos table may hold the time of every frame. Who wants some videos of thousands skips
the groups that, by the statistics in the footer, hold none of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsp_core.storage.sealed import table_bytes

MAX_LIST_BYTES = 2 << 20
"""Of the lists in one group, before compression: as many frame times as two hours of 30 frames per
second have. A group costs some 3 kB in the footer, which every reader reads."""

_SEAL = b"tsp.seal"  # without it nobody knows whether the statistics are what was written


def grouped_bytes(table: pa.Table) -> bytes:
    """Write a table as a sealed Parquet file, in several row groups where it has long lists.

    The lists of these are written as differences, for their numbers mostly ascend: a dictionary,
    the default, fills up with times that never come again, in every group anew.
    """
    groups = list(_groups(table))
    if len(groups) < 2:
        return table_bytes(table)
    lists = _lists(table.schema)
    return table_bytes(
        table,
        groups=groups,
        use_dictionary=[name for name in table.schema.names if name not in lists],
        column_encoding={f"{name}.list.element": "DELTA_BINARY_PACKED" for name in lists},
    )


def read_matching(
    file: pq.ParquetFile,
    filters: Sequence[tuple[str, Any, Any]],
    *,
    columns: Sequence[str] | None,
    in_parts: bool,
) -> pa.Table:
    """Read the groups that may hold rows that meet all conditions; also rows that do not.

    Args:
        file: The file.
        filters: Conditions: column, operator, value.
        columns: Columns to read; all by default.
        in_parts: The file is fetched as it is read, so it is read from its start to its end.
    """
    is_sealed = _SEAL in (file.metadata.metadata or {})
    groups = [
        number
        for number in range(file.num_row_groups)
        if not is_sealed
        or all(_may_hold(file.metadata.row_group(number), *item) for item in filters)
    ]
    names = None if columns is None else list(columns)
    return file.read_row_groups(groups, columns=names, use_threads=not in_parts)


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """Slices of a table whose lists have about as many bytes each."""
    row_bytes = np.zeros(table.num_rows, dtype=np.int64)
    for name, item_bytes in _lists(table.schema).items():
        lengths = pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy()
        row_bytes += lengths.astype(np.int64) * item_bytes
    number = (np.cumsum(row_bytes) - row_bytes) // MAX_LIST_BYTES
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), table.num_rows]
    for start, end in itertools.pairwise(starts):
        yield table.slice(start, end - start)


def _lists(schema: pa.Schema) -> dict[str, int]:
    """The columns of lists of integers, with the bytes of an item."""
    return {
        field.name: field.type.value_type.bit_width // 8
        for field in schema
        if pa.types.is_list(field.type) and pa.types.is_integer(field.type.value_type)
    }


def _may_hold(group: pq.RowGroupMetaData, name: str, operator: str, value: Any) -> bool:
    """Whether a group may hold texts of a column that meet a condition, by its statistics."""
    wanted = list(value) if operator == "in" else [value]
    if operator not in ("in", "=", "==") or not all(isinstance(item, str) for item in wanted):
        return True
    columns = (group.column(number) for number in range(group.num_columns))
    found = next((item.statistics for item in columns if item.path_in_schema == name), None)
    if found is None or not found.has_min_max or not isinstance(found.min, str):
        return True
    return any(found.min <= item <= found.max for item in wanted)

"""Tables whose rows are long: the rows of some videos are read without those of the others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsp_core import storage
from tsp_core.schemas import VIDEOS, read_table, table_from_rows, write_table
from tsp_core.storage import row_groups
from tsp_core.storage.row_groups import grouped_bytes
from tsp_core.storage.sealed import DamagedError, open_parquet, table_bytes

Filters = list[tuple[str, Any, Any]]


def videos(lengths: list[int]) -> pa.Table:
    """A table of videos with so many frame times each; every third is in quarantine."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "video": f"v{number:04d}",
            "status": "quarantined" if number % 3 == 2 else "ok",
            "pts": np.cumsum(rng.integers(1, 3000, length)) if length else None,
            "keyframes": np.arange(0, length, 12, dtype=np.int32) if length else None,
        }
        for number, length in enumerate(lengths)
    ]
    return table_from_rows(rows, VIDEOS)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "MAX_LIST_BYTES", 4000)


def test_tables_without_long_lists_are_written_as_one_group() -> None:
    for table in (videos([]), videos([0] * 50), videos([300] * 50)):
        assert grouped_bytes(table) == table_bytes(table)


@pytest.mark.usefixtures("small_groups")
def test_groups_are_bound_by_the_bytes_of_their_lists() -> None:
    table = videos([400] * 8 + [0] * 100 + [3000, 400])
    content = grouped_bytes(table)
    assert grouped_bytes(table) == content
    file = open_parquet(io.BytesIO(content), "x")
    assert file.read().equals(table)
    assert file.schema_arrow.metadata[b"tsp.schema"] == b"videos"
    assert b"tsp.seal" in file.metadata.metadata
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sum(sizes) == 110
    assert max(sizes[:6]) <= 2


@pytest.mark.usefixtures("small_groups")
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 900), max_size=20),
    chosen=st.lists(st.integers(0, 22), min_size=1, max_size=5),
    in_parts=st.booleans(),
)
def test_the_same_rows_come_out(lengths: list[int], chosen: list[int], in_parts: bool) -> None:
    table = videos(lengths)
    names = [f"v{number:04d}" for number in chosen]
    write_table("memory://rows/videos.parquet", table, VIDEOS)
    for filters in (
        [("video", "in", names), ("status", "=", "ok")],
        [("status", "!=", "ok")],
        [("video", ">", "v0003")],
        [("video", "==", "v0001"), ("num_frames", "<", 3)],
    ):
        found = read_table(
            "memory://rows/videos.parquet", "videos", filters=filters, in_parts=in_parts
        )
        assert found.equals(table.filter(pq.filters_to_expression(filters)))


def spoiled(content: bytes, group: int) -> bytes:
    """The file with one byte of the frame times of a group changed."""
    metadata = pq.read_metadata(io.BytesIO(content)).row_group(group)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    (pts,) = (item for item in columns if item.path_in_schema.startswith("pts"))
    damaged = bytearray(content)
    damaged[pts.data_page_offset + pts.total_compressed_size // 2] ^= 1
    return bytes(damaged)


@pytest.mark.usefixtures("small_groups")
def test_other_groups_are_not_read(tmp_path: Path) -> None:
    """A damaged page of other videos shows whether somebody has read it."""
    uri, table = str(tmp_path / "videos.parquet"), videos([400] * 60)
    write_table(uri, table, VIDEOS)
    storage.write_bytes(uri, spoiled(storage.read_bytes(uri), group=0))
    wanted = ["v0030", "v0031"]
    filters: Filters = [("video", "in", wanted), ("status", "=", "ok")]
    found = read_table(uri, "videos", filters=filters, in_parts=True)
    assert found.equals(table.slice(30, 2))
    with pytest.raises(DamagedError, match="not a readable Parquet file"):
        read_table(uri, "videos", filters=[("video", "in", ["v0000"])], in_parts=True)
    with pytest.raises(DamagedError):
        read_table(uri, "videos")


def test_a_part_of_a_large_table_is_fetched(tmp_path: Path, monkeypatch: Any) -> None:
    """What is asked of the store is a small part of the file."""
    uri = str(tmp_path / "videos.parquet")
    monkeypatch.setattr(row_groups, "MAX_LIST_BYTES", 100_000)
    table = videos([3000] * 200)
    write_table(uri, table, VIDEOS)
    assert storage.info(uri).size_bytes < len(table_bytes(table)), "differences are smaller"
    fetched: list[int] = []
    opened = storage.opened

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            fetched.append(len(data))
            return data

    def counting(uri: str) -> Any:
        with opened(uri) as file:
            return Counting(file.read())

    monkeypatch.setattr(storage, "opened", counting)
    filters: Filters = [("video", "in", ["v0090", "v0091"])]
    assert read_table(uri, "videos", filters=filters, in_parts=True).num_rows == 2
    footer = pq.read_metadata(uri).serialized_size
    assert sum(fetched) - 2 * footer < storage.info(uri).size_bytes / 5

"""Sealed Parquet files: whatever byte is damaged, nobody reads other values than were written."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsp_core import storage
from tsp_core.errors import ArtifactError
from tsp_core.schemas import features_schema, table_from_rows
from tsp_core.storage import sealed
from tsp_core.storage.sealed import (
    DamagedError,
    SealedWriter,
    open_parquet,
    read_parquet,
    table_bytes,
)


def table() -> pa.Table:
    values = np.random.default_rng(0).random((6, 8), dtype=np.float32)
    rows = [
        {
            "video": f"v{i // 3}",
            "status": "ok",
            "clip_index": i % 3,
            "t_start": i / 7,
            "feature": row,
        }
        for i, row in enumerate(values)
    ]
    return table_from_rows(rows, features_schema(8))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = table_bytes(table())
    assert pq.read_table(io.BytesIO(content)).equals(table())
    with SealedWriter(tmp_path / "x", table().schema) as writer:
        writer.write_table(table().slice(0, 2))
        writer.write_table(table().slice(2))
    for written in (content, (tmp_path / "x").read_bytes()):
        file = open_parquet(io.BytesIO(written), "x")
        assert file.read().equals(table())
        assert b"tsp.seal" in file.metadata.metadata
    assert table_bytes(table()) == content


@pytest.mark.parametrize("part", range(4))
def test_no_damaged_byte_goes_unnoticed(part: int) -> None:
    content, expected = table_bytes(table()), table()
    noticed = 0
    for place in range(part * 5, len(content), 20):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        try:
            with sealed.noticing_damage("x"):
                found = open_parquet(io.BytesIO(bytes(damaged)), "x").read()
        except DamagedError:
            noticed += 1
        else:
            assert found.equals(expected), place
    assert noticed > len(content) / 20 / 2


@pytest.mark.parametrize("keep", [0, 3, 8, 500, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    uri = str(tmp_path / "x.parquet")
    storage.write_bytes(uri, table_bytes(table())[:keep])
    for in_parts in (True, False):
        with pytest.raises(ArtifactError, match=r"x\.parquet: not a readable Parquet file"):
            read_parquet(uri, lambda file: file.read(), in_parts=in_parts)


def test_files_of_others_are_read_unsealed() -> None:
    file = io.BytesIO()
    pq.write_table(table(), file)
    assert open_parquet(file, "x").read().equals(table())


def test_a_name_that_is_no_text_is_damage() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"telltale": [1]}), file, store_schema=False)
    damaged = io.BytesIO(file.getvalue().replace(b"telltale", b"tell\x80ale"))
    with pytest.raises(DamagedError, match="not a readable Parquet file"):
        open_parquet(damaged, "x").schema_arrow  # noqa: B018

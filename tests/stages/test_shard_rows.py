"""A shard reads the rows of its own videos, however long those of the others are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsp_core import artifacts, schemas
from tsp_core.artifacts import Recipe
from tsp_core.config import Config
from tsp_core.errors import ArtifactError
from tsp_core.schemas import VIDEOS, gvf_schema
from tsp_core.stages.base import Shard
from tsp_core.stages.shards import Computed, run_videos
from tsp_core.storage import row_groups

NUM_FRAMES = 1000


def videos_table() -> pa.Table:
    """Forty videos of a variable rate, with the time of every frame."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "video": f"v{number:02d}",
            "uri": f"v{number:02d}.mp4",
            "status": "ok",
            "content_hash": f"{number:064x}",
            "pts": np.cumsum(rng.integers(1, 3000, NUM_FRAMES)),
        }
        for number in range(40)
    ]
    return schemas.table_from_rows(rows, VIDEOS)


def without_times_of(content: bytes, wanted: int) -> bytes:
    """The file with the frame times of all groups but one damaged."""
    metadata, damaged = pq.read_metadata(io.BytesIO(content)), bytearray(content)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in (group.column(i) for i in range(group.num_columns)):
            if number != wanted and column.path_in_schema.startswith("pts"):
                damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    return bytes(damaged)


def test_the_rows_of_other_videos_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "MAX_LIST_BYTES", 10 * NUM_FRAMES * 8)
    path, table = tmp_path / "videos.parquet", videos_table()
    schemas.write_table(str(path), table, VIDEOS)
    path.write_bytes(without_times_of(path.read_bytes(), wanted=1))
    recipe = Recipe(stage="ingest", version=1, config={}, inputs={})
    root = str(tmp_path / "root")
    inputs = {"ingest": artifacts.publish(root, recipe, {path.name: path})}
    config = Config.model_validate({"name": "n", "root": root})
    seen: list[Mapping[str, Any]] = []

    def compute(row: Mapping[str, Any]) -> Computed:
        seen.append(row)
        result = {"video": row["video"], "status": "ok", "num_clips": 1, "gvf": [0.0, 0.0]}
        return Computed(table=schemas.table_from_rows([result], gvf_schema(2)), num_clips=1)

    names = ("v17", "v12", "v19")
    shard = Shard(index=0, uri=f"{root}/shards/gvf/w/k.parquet", videos=names)
    assert run_videos(config, inputs, shard, gvf_schema(2), compute).num_ok == 3
    assert seen == [table.slice(number, 1).to_pylist()[0] for number in (12, 17, 19)]
    for videos, message in ((["v31"], "not a readable"), (["v12", "v1x"], "does not hold")):
        other = shard.model_copy(update={"videos": tuple(videos)})
        with pytest.raises(ArtifactError, match=message):
            run_videos(config, inputs, other, gvf_schema(2), compute)

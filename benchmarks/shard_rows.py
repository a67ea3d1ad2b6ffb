"""What a shard reads of the videos table, where rows hold the times of all frames.

The same table as one row group, read whole and filtered, is the baseline.
`python -m benchmarks.shard_rows [--quick]`
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import measure
from benchmarks.measure import Row
from tsp_core.schemas import VIDEOS, read_table, table_from_rows, write_table
from tsp_core.storage import row_groups, sealed

_VIDEOS = 4000
_FRAMES = 3600  # two minutes
_SHARD = 16


def run(quick: bool) -> list[Row]:
    """Measure on videos of a variable rate, whose times are drawn."""
    table = _table(_VIDEOS // 8 if quick else _VIDEOS)
    with tempfile.TemporaryDirectory() as folder:
        grouped, whole = Path(folder, "grouped.parquet"), Path(folder, "whole.parquet")
        write_table(str(grouped), table, VIDEOS)
        whole.write_bytes(sealed.table_bytes(table))
        names = [str(name) for name in table["video"].to_pylist()]
        shards = [names[first : first + _SHARD] for first in range(0, len(names), 40 * _SHARD)]
        for shard in shards:
            assert _read(grouped, shard, in_parts=True).equals(_read(whole, shard, in_parts=False))
        rates = measure.side_by_side(
            {
                "grouped": lambda: _all(grouped, shards, in_parts=True),
                "whole": lambda: _all(whole, shards, in_parts=False),
            },
            rounds=3 if quick else 7,
        )
        sizes = f"{grouped.stat().st_size / 1e6:.1f} MB against {whole.stat().st_size / 1e6:.1f}"
    ours, baseline = rates["grouped"], rates["whole"]
    wall = [1e3 / statistics.median(item.wall) for item in (ours, baseline)]
    return [
        measure.row(
            f"rows of a shard of {_SHARD}, of {len(names)} videos",
            1e3 / ours.per_core,
            unit="CPU ms/shard",
            baseline=1e3 / baseline.per_core,
            ratio=measure.ratio(ours, baseline),
            notes=f"wall {wall[0]:.1f} against {wall[1]:.0f} ms; file {sizes}; groups of "
            f"{row_groups.MAX_LIST_BYTES >> 20} MiB",
        )
    ]


def _all(path: Path, shards: list[list[str]], *, in_parts: bool) -> int:
    for shard in shards:
        _read(path, shard, in_parts=in_parts)
    return len(shards)


def _read(path: Path, shard: list[str], *, in_parts: bool) -> pa.Table:
    """As `tsp_core.stages.shards` reads the rows of a shard."""
    filters: list[tuple[str, Any, Any]] = [("video", "in", shard), ("status", "=", "ok")]
    return read_table(str(path), VIDEOS.name, filters=filters, in_parts=in_parts)


def _table(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    rows = [
        {
            "video": f"v_{number:06d}",
            "uri": f"/data/v_{number:06d}.mp4",
            "status": "ok",
            "content_hash": f"{number:064x}",
            "is_variable_rate": True,
            "pts": np.cumsum(rng.integers(2900, 3100, _FRAMES)),
            "keyframes": np.arange(0, _FRAMES, 48, dtype=np.int32),
        }
        for number in range(count)
    ]
    return table_from_rows(rows, VIDEOS)


if __name__ == "__main__":
    options = measure.arguments(__doc__)
    measure.report(run(options.quick), options.json)

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.training.tiny import FEATURE_SIZE, clips_table, global_features
from tsp_core.errors import ArtifactError, GvfError
from tsp_core.schemas import CLIPS, VIDEOS, table_from_rows
from tsp_core.training.index import open_index, write_index

PATHS = [Path(f"v{number}.mp4") for number in range(3)]


def videos(names: list[str], status: str = "ok") -> pa.Table:
    return table_from_rows([{"video": name, "status": status} for name in names], VIDEOS)


def test_rows_keep_their_order_and_find_their_videos(tmp_path: Path) -> None:
    table = videos(["unused", "v2", "v0", "v1"])
    write_index(tmp_path, videos=table, clips=clips_table(PATHS), gvf=global_features(PATHS))
    index = open_index(tmp_path)
    assert index.rows_of("training").tolist() == [0, 1, 2, 3, 4, 5]
    assert index.rows_of("validation").tolist() == [6, 7, 8]
    assert index.rows_of("test").tolist() == []
    assert "unused" not in index.videos["video"].to_pylist()
    names = [index.video_row(i)["video"] for i in index.video_indices]
    assert names == ["v0"] * 3 + ["v1"] * 3 + ["v2"] * 3
    assert index.label_indices.tolist() == [-1, 0, -1, -1, 1, -1, -1, 0, -1]
    assert index.regions.tolist() == [1, 0, 1] * 3
    assert index.gvf is not None
    assert index.gvf.shape == (3, FEATURE_SIZE)
    for row in range(9):
        expected = global_features(PATHS)[names[row]]
        assert np.array_equal(index.gvf[index.video_indices[row]], expected)


def test_starts_lie_between_the_first_and_the_last(tmp_path: Path) -> None:
    write_index(tmp_path, videos=videos(["v0", "v1", "v2"]), clips=clips_table(PATHS))
    index = open_index(tmp_path)
    assert index.gvf is None
    starts = index.starts(np.array([1, 1, 1]), np.array([0.0, 0.5, 1.0]))
    last = 2.5 - 8 / 15
    assert starts.tolist() == pytest.approx([1.2, (1.2 + last) / 2, last])
    assert index.describe(1, 0.0) == "v0 at 1.200 s"


def test_the_index_is_mapped_not_copied(tmp_path: Path) -> None:
    write_index(
        tmp_path,
        videos=videos(["v0", "v1", "v2"]),
        clips=clips_table(PATHS),
        gvf=global_features(PATHS),
    )
    before = pa.total_allocated_bytes()
    index = open_index(tmp_path)
    assert pa.total_allocated_bytes() <= before
    for array in (index.video_indices, index.label_indices, index.regions, index.first_starts):
        assert not array.flags.owndata
        assert not array.flags.writeable
    assert isinstance(index.gvf, np.memmap)
    assert len(pickle.dumps(index.folder)) < 1000  # what a loader process is sent


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own figures are Linux's")
def test_a_loader_process_has_no_copy_of_the_index(tmp_path: Path) -> None:
    """Of 32 MB that it looks at, a process keeps next to nothing for itself."""
    count = 1_000_000
    clips = pa.table(
        {
            "video": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, dtype=np.int32)), pa.array(["v0"])
            ).cast(pa.string()),
            "subset": pa.array(["s"]).take(pa.array(np.zeros(count, dtype=np.int32))),
            "label_index": np.arange(count, dtype=np.int32),
            "region": np.zeros(count, dtype=np.int8),
            "first_start": np.zeros(count),
            "last_start": np.ones(count),
            "status": pa.array(["ok"]).take(pa.array(np.zeros(count, dtype=np.int32))),
        }
    )
    write_index(tmp_path, videos=videos(["v0"]), clips=clips)
    assert (tmp_path / "clips.arrow").stat().st_size > 30e6
    done = subprocess.run(
        [sys.executable, "-c", LOOK_AT_INDEX, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    total, kept_bytes = done.stdout.split()
    assert float(total) == count * (count - 1) / 2 + count
    assert int(kept_bytes) < 3e6


LOOK_AT_INDEX = """
import sys
from pathlib import Path
from tsp_core.training.data import ClipDataset
from tsp_core.training.index import open_index

def own_bytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

before = own_bytes()
index = open_index(Path(sys.argv[1]))
total = 0.0
for first in range(0, len(index.regions), 1000):  # batch by batch, as a loader does
    rows = slice(first, first + 1000)
    labels = index.label_indices[rows].sum() + index.video_indices[rows].sum()
    total += float(labels + index.regions[rows].sum())
    total += float((index.first_starts[rows] + index.last_starts[rows]).sum())
print(total, own_bytes() - before)
"""


def test_lists_of_a_video_are_views_of_the_file(tmp_path: Path) -> None:
    rows = [
        {"video": f"v{number}", "status": "ok", "pts": pts, "keyframes": [0, number]}
        for number, pts in enumerate([[1, 5, 6], None, [2]])
    ]
    write_index(tmp_path, videos=table_from_rows(rows, VIDEOS), clips=clips_table(PATHS))
    index = open_index(tmp_path)
    found = [index.video_row(number) for number in range(3)]
    assert [row["pts"].tolist() for row in found] == [[1, 5, 6], [], [2]]
    assert [row["keyframes"].tolist() for row in found] == [[0, 0], [0, 1], [0, 2]]
    assert not found[0]["pts"].flags.owndata


def test_proxies_are_found_by_the_content_of_videos(tmp_path: Path) -> None:
    rows = [{"video": f"v{i}", "status": "ok", "content_hash": f"h{i}"} for i in range(3)]
    table = table_from_rows(rows, VIDEOS)
    write_index(tmp_path, videos=table, clips=clips_table(PATHS), proxies={"h1": "uri", "x": "y"})
    index = open_index(tmp_path)
    assert [index.video_row(i)["proxy"] for i in range(3)] == [None, "uri", None]


def test_clips_that_are_not_usable_are_left_out(tmp_path: Path) -> None:
    rows = clips_table(PATHS).to_pylist()
    rows[0].update(status="too_short", first_start=None, last_start=None)
    rows[4].update(status="no_video", video="gone", first_start=None, last_start=None)
    write_index(tmp_path, videos=videos(["v0", "v1", "v2"]), clips=table_from_rows(rows, CLIPS))
    assert len(open_index(tmp_path).rows_of("training")) == 4


def test_a_clip_without_a_usable_video_is_refused_by_name(tmp_path: Path) -> None:
    table = pa.concat_tables([videos(["v0", "v1"]), videos(["v2"], status="quarantined")])
    with pytest.raises(ArtifactError, match="'v2': not among the usable videos"):
        write_index(tmp_path, videos=table, clips=clips_table(PATHS))


def test_a_missing_gvf_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GvfError, match="none for 'v2'"):
        write_index(
            tmp_path,
            videos=videos(["v0", "v1", "v2"]),
            clips=clips_table(PATHS),
            gvf=global_features(PATHS[:2]),
        )


def test_a_large_index_opens_in_a_moment(tmp_path: Path) -> None:
    names = [f"video{number:05d}" for number in range(20_000)]
    count = 160_000
    clips = pa.table(
        {
            "video": [names[row % len(names)] for row in range(count)],
            "subset": ["training"] * count,
            "label_index": pa.array(np.zeros(count, dtype=np.int32)),
            "region": pa.array(np.zeros(count, dtype=np.int8)),
            "t_start": np.zeros(count),
            "t_end": np.ones(count),
            "first_start": np.zeros(count),
            "last_start": np.ones(count),
            "status": ["ok"] * count,
        }
    )
    write_index(tmp_path, videos=videos(names), clips=clips)
    begin = time.perf_counter()
    index = open_index(tmp_path)
    assert len(index.rows_of("training")) == count
    assert index.describe(count - 1, 1.0) == f"{names[(count - 1) % len(names)]} at 1.000 s"
    assert time.perf_counter() - begin < 0.5

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from tsp_core.errors import GvfError, StorageError
from tsp_core.features.gvf import GvfTable, gvf_from_table, h5_bytes, pool, read_gvf, table_from_gvf
from tsp_core.schemas import gvf_schema, table_from_rows, write_table


def gvf_table(**changes: object) -> GvfTable:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    fields = {"source": "gvf.h5", "names": ("a", "b"), "values": values, **changes}
    return GvfTable(**fields)


def h5_file(path: Path, datasets: dict[str, object]) -> str:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return str(path)


def test_pooling_by_hand() -> None:
    features = np.array([[1, -5], [3, -7]], dtype=np.float32)
    np.testing.assert_array_equal(pool(features, "max"), [3, -5])
    np.testing.assert_array_equal(pool(features, "avg"), [2, -6])
    assert pool(features, "max").dtype == pool(features, "avg").dtype == np.float32


@pytest.mark.shared
def test_the_released_file_reads_and_writes_back(shared: Path, tmp_path: Path) -> None:
    released = shared / "reference" / "thumos14_r2plus1d_34-max_gvf.h5"
    table = read_gvf(str(released))
    assert (len(table.names), table.feature_size) == (413, 512)
    with h5py.File(released) as file:
        np.testing.assert_array_equal(
            table.lookup("video_validation_0000051"), file["video_validation_0000051"][()]
        )
        (tmp_path / "ours.h5").write_bytes(h5_bytes(table))
        with h5py.File(tmp_path / "ours.h5") as ours:
            assert list(ours) == list(file)
            for name in file:
                assert ours[name].dtype == file[name].dtype
                np.testing.assert_array_equal(ours[name][()], file[name][()])


def test_equal_tables_give_equal_h5_bytes() -> None:
    shuffled = gvf_table(names=("b", "a"), values=gvf_table().values[::-1])
    assert h5_bytes(gvf_table()) == h5_bytes(shuffled)
    with h5py.File(io.BytesIO(h5_bytes(shuffled))) as file:
        np.testing.assert_array_equal(file["a"][()], [0, 1, 2])


def test_parquet_round_trip_keeps_failures(tmp_path: Path) -> None:
    rows = [
        {"video": "a", "status": "ok", "num_clips": 2, "gvf": [1.0, 2.0]},
        {"video": "b", "status": "quarantined", "code": "corrupted", "reason": "it is broken"},
    ]
    uri = str(tmp_path / "gvf.parquet")
    write_table(uri, table_from_rows(rows, gvf_schema(2)), gvf_schema(2))
    table = read_gvf(uri)
    assert table.names == ("a",)
    assert table.failed == {"b": "it is broken"}
    assert "b" not in table
    with pytest.raises(GvfError, match=r"no GVF for 1 of the videos: 'b' \(it is broken\)"):
        table.check(["a", "b"], feature_size=2, encoder="r2plus1d_tiny")


def test_an_imported_table_keeps_only_the_videos_asked_for() -> None:
    table = gvf_from_table(table_from_gvf(gvf_table(), ["b"]), source="x")
    assert table.names == ("b",)
    np.testing.assert_array_equal(table.lookup("b"), [3, 4, 5])


def test_a_missing_video_is_refused_by_name() -> None:
    with pytest.raises(GvfError, match=r"gvf\.h5: no GVF for 1 of the videos: 'c'"):
        gvf_table().lookup("c")
    wanted = [f"video{number}" for number in range(9)]
    with pytest.raises(GvfError, match=r"9 of the videos: 'video0', .* and 4 more; add them"):
        gvf_table().check(wanted, feature_size=3, encoder="r2plus1d_tiny")


def test_a_wrong_size_is_refused_by_size() -> None:
    with pytest.raises(GvfError, match="size 3, but the encoder r3d_18 gives features of size 512"):
        gvf_table().check(["a"], feature_size=512, encoder="r3d_18")


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    uri = h5_file(tmp_path / "x.h5", {"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(GvfError, match=r"different sizes: 3 \('a'\), 4 \('b'\)"):
        read_gvf(uri)


def test_a_dataset_of_another_shape_is_refused(tmp_path: Path) -> None:
    uri = h5_file(tmp_path / "x.h5", {"a": np.zeros((2, 3), dtype=np.float32)})
    with pytest.raises(GvfError, match=r"'a' is \(2, 3\), expected one dataset of F"):
        read_gvf(uri)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    uri = h5_file(tmp_path / "x.h5", {"a": np.zeros(2), "b": np.array([0.0, np.nan])})
    with pytest.raises(GvfError, match="GVF of 'b' has values that are not finite"):
        read_gvf(uri)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(GvfError, match=r"x\.txt: neither an H5 nor a Parquet file"):
        read_gvf(str(tmp_path / "x.txt"))
    with pytest.raises(GvfError, match=r"empty\.h5: an H5 file without any dataset"):
        read_gvf(h5_file(tmp_path / "empty.h5", {}))
    (tmp_path / "cut.h5").write_bytes(h5_bytes(gvf_table())[:600])
    with pytest.raises(GvfError, match=r"cut\.h5: damaged H5 file"):
        read_gvf(str(tmp_path / "cut.h5"))
    with pytest.raises(StorageError, match="no such file"):
        read_gvf(str(tmp_path / "absent.h5"))


def test_a_parquet_file_of_another_table_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.parquet")
    from tsp_core.schemas import TIMES

    write_table(uri, table_from_rows([], TIMES), TIMES)
    with pytest.raises(GvfError, match="holds the table 'times', expected 'gvf'"):
        read_gvf(uri)

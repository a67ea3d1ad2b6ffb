from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.features.clips import CLIP, ENCODER, extractor
from tests.stages.dataset import Dataset
from tests.stages.running import contents, run
from tsp_core import storage
from tsp_core.errors import (
    ArtifactError,
    FeaturesError,
    GvfError,
    TooManyBadVideosError,
    VideoError,
)
from tsp_core.features import extraction
from tsp_core.features.extraction import Extractor
from tsp_core.features.gvf import GvfTable, h5_bytes, read_gvf
from tsp_core.features.rows import FeatureRows
from tsp_core.model.encoders import feature_size
from tsp_core.schemas import gvf_schema
from tsp_core.stages import gvf


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path, ["a", "b", "v_c"])


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_gvfs_pool_the_clips_of_each_video(dataset: Dataset, pooling: str) -> None:
    config = dataset.config(gvf={"pooling": pooling})
    report, computed = run(gvf, config, dataset.inputs())
    assert computed == ["a", "b", "v_c"]
    assert report.summary["videos"] == 3
    assert report.summary["clips"] == 12
    table = read_gvf(report.artifact.file("gvf.parquet"))
    features = extractor(16).extract_row(dataset.rows["b"], CLIP, 8).features
    expected = features.max(axis=0) if pooling == "max" else features.mean(axis=0)
    np.testing.assert_allclose(table.lookup("b"), expected, rtol=1e-6)
    with h5py.File(storage.local_path(report.artifact.file("gvf.h5"))) as file:
        assert sorted(file) == ["a", "b", "v_c"]
        np.testing.assert_array_equal(file["b"][()], table.lookup("b"))


def test_only_videos_with_a_usable_clip_are_computed(dataset: Dataset) -> None:
    dataset.refuse("d")
    report, computed = run(gvf, dataset.config(), dataset.inputs(without_clips=["a"]))
    assert computed == ["b", "v_c"]
    assert read_gvf(report.artifact.file("gvf.h5")).names == ("b", "v_c")


def test_a_rerun_computes_nothing_and_new_videos_alone(dataset: Dataset) -> None:
    config = dataset.config()
    first, _ = run(gvf, config, dataset.inputs())
    plan = gvf.plan(config, dataset.inputs())
    assert plan.existing == first.artifact
    assert plan.shards == ()
    dataset.add("aa")
    dataset.add("b", seconds=2.0)  # the same name, another content
    second, computed = run(gvf, config, dataset.inputs())
    assert computed == ["aa", "b"]
    one, two = (read_gvf(report.artifact.file("gvf.parquet")) for report in (first, second))
    assert two.names == ("a", "aa", "b", "v_c")
    np.testing.assert_array_equal(one.lookup("v_c"), two.lookup("v_c"))
    assert not np.array_equal(one.lookup("b"), two.lookup("b"))


def test_a_run_that_stopped_goes_on_and_comes_to_the_same_bytes(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole, _ = run(gvf, dataset.config(), dataset.inputs())
    other = dataset.config()
    other = other.model_copy(update={"root": str(tmp_path / "other")})
    inputs = dataset.inputs()
    plan = gvf.plan(other, inputs)
    assert [len(shard.videos) for shard in plan.shards] == [2, 1]
    gvf.run_shard(other, inputs, plan.shards[1])
    with pytest.raises(ArtifactError, match=r"2 of 3 videos have not been computed \('a'"):
        gvf.finish(other, inputs, plan)
    again = gvf.plan(other, inputs)
    assert again.num_items_done == 1
    assert [shard.videos for shard in again.shards] == [("a", "b")]
    resumed, _ = run(gvf, other, inputs)
    assert contents(resumed.artifact) == contents(whole.artifact)


def test_a_shard_run_twice_writes_the_same(dataset: Dataset) -> None:
    config, inputs = dataset.config(), dataset.inputs()
    shard = gvf.plan(config, inputs).shards[0]
    gvf.run_shard(config, inputs, shard)
    once = storage.read_bytes(shard.uri)
    gvf.run_shard(config, inputs, shard)
    assert storage.read_bytes(shard.uri) == once


def test_a_video_that_fails_is_quarantined_and_the_rest_goes_on(dataset: Dataset) -> None:
    dataset.damage("b")
    dataset.rows["b"]["content_hash"] = storage.sha256_of_file(dataset.folder / "b.mp4")
    config = dataset.config(ingest={"max_bad_fraction": 0.5})
    report, _ = run(gvf, config, dataset.inputs())
    assert report.summary["quarantined"] == 1
    rows = pq.read_table(storage.local_path(report.artifact.file("gvf.parquet"))).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "quarantined", "ok"]
    assert rows[1]["gvf"] is None
    assert rows[1]["code"] == "unreadable"
    assert "b.mp4" in rows[1]["reason"]
    assert str(dataset.folder) not in rows[1]["reason"]
    assert read_gvf(report.artifact.file("gvf.h5")).names == ("a", "v_c")


def test_too_many_failures_fail_the_run(dataset: Dataset) -> None:
    dataset.damage("b")
    with pytest.raises(TooManyBadVideosError, match=r"gvf: 1 of 3 videos failed.*'b': checksum"):
        run(gvf, dataset.config(), dataset.inputs())


def test_a_file_that_comes_back_is_computed_again(dataset: Dataset) -> None:
    config, inputs = dataset.config(), dataset.inputs()
    path = dataset.folder / "b.mp4"
    hidden = path.rename(path.with_suffix(".gone"))
    plan = gvf.plan(config, inputs)
    reports = [gvf.run_shard(config, inputs, shard) for shard in plan.shards]
    assert [report.num_quarantined for report in reports] == [1, 0]
    hidden.rename(path)
    report, computed = run(gvf, config, inputs)
    assert computed == ["b"]
    assert report.summary["quarantined"] == 0


def test_a_file_that_comes_back_heals_what_was_published_without_it(dataset: Dataset) -> None:
    config = dataset.config(ingest={"max_bad_fraction": 0.5})
    inputs = dataset.inputs()
    path = dataset.folder / "b.mp4"
    hidden = path.rename(path.with_suffix(".gone"))
    without, _ = run(gvf, config, inputs)
    assert (without.summary["quarantined"], without.summary["unsettled"]) == (1, ["file"])
    plan = gvf.plan(config, inputs)
    assert (plan.existing, plan.current) == (None, without.artifact)  # others go on meanwhile
    hidden.rename(path)
    healed, computed = run(gvf, config, inputs)
    assert computed == ["b"]
    assert healed.summary["quarantined"] == 0
    assert "unsettled" not in healed.summary
    plan = gvf.plan(config, inputs)
    assert plan.existing == healed.artifact


def test_a_file_that_was_half_copied_is_computed_again_when_it_is_whole(dataset: Dataset) -> None:
    config = dataset.config(ingest={"max_bad_fraction": 0.5})
    inputs = dataset.inputs()
    path = dataset.folder / "b.mp4"
    whole = path.read_bytes()
    dataset.damage("b")
    without, _ = run(gvf, config, inputs)
    assert without.summary["unsettled"] == ["file"]
    table = pq.read_table(storage.local_path(without.artifact.file("gvf.parquet")))
    failed = table.to_pylist()[1]
    assert failed["code"] == "checksum"
    assert failed["reason"].startswith("'b.mp4' is not what ingest measured")
    assert str(dataset.folder) not in failed["reason"]
    path.write_bytes(whole)
    healed, computed = run(gvf, config, inputs)
    assert computed == ["b"]
    assert healed.summary["quarantined"] == 0


def test_a_damaged_copy_in_the_cache_is_discarded_and_downloaded_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    config = dataset.config(ingest={"max_bad_fraction": 0.5}, runtime={"cache_dir": str(cache)})
    uri = "memory://remote/b.mp4"
    whole = (dataset.folder / "b.mp4").read_bytes()
    storage.write_bytes(uri, whole)
    dataset.rows["b"]["uri"] = uri
    copy = cache / "videos" / f"{dataset.rows['b']['content_hash']}.mp4"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(whole[: len(whole) // 2])
    inputs = dataset.inputs()
    without, _ = run(gvf, config, inputs)
    assert without.summary["unsettled"] == ["file"]
    assert not copy.exists()
    healed, computed = run(gvf, config, inputs)
    assert computed == ["b"]
    assert healed.summary["quarantined"] == 0
    assert copy.read_bytes() == whole
    storage.delete(uri)


def test_a_file_that_stays_away_is_not_tried_for_ever(dataset: Dataset) -> None:
    config = dataset.config(ingest={"max_bad_fraction": 0.5})
    inputs = dataset.inputs()
    (dataset.folder / "b.mp4").unlink()
    runs = [run(gvf, config, inputs)[0].artifact for _ in range(4)]
    assert len({artifact.uri for artifact in runs}) == 4
    assert gvf.plan(config, inputs).existing == runs[-1]


def test_what_the_limits_decided_is_tried_again_under_others(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, inputs = dataset.config(ingest={"max_bad_fraction": 0.5}), dataset.inputs()
    compute = Extractor.extract_row

    def slow(self: Extractor, row: Mapping[str, Any], *args: Any, **options: Any) -> FeatureRows:
        if row["video"] == "b":
            raise VideoError("limits", "decoding takes longer than runtime.decoder_seconds")
        return compute(self, row, *args, **options)

    monkeypatch.setattr(Extractor, "extract_row", slow)
    cut_off, _ = run(gvf, config, inputs)
    assert cut_off.summary["quarantined"] == 1
    assert gvf.plan(config, inputs).existing == cut_off.artifact  # nothing has changed
    monkeypatch.setattr(Extractor, "extract_row", compute)
    patient = dataset.config(ingest={"max_bad_fraction": 0.5}, runtime={"decoder_seconds": 100_000})
    found, computed = run(gvf, patient, inputs)
    assert computed == ["b"]
    assert found.summary["quarantined"] == 0
    assert gvf.plan(config, inputs).existing == cut_off.artifact


def test_features_that_are_not_finite_are_refused(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowing(prepared: object, clips: torch.Tensor) -> torch.Tensor:
        return torch.full((len(clips), feature_size(ENCODER)), torch.inf)

    monkeypatch.setattr(extraction, "forward_features", overflowing)
    message = (
        r"'a': the features of \d+ of \d+ clips are not finite in fp32 .*clip 0.*use fp32 or bf"
    )
    with pytest.raises(FeaturesError, match=message):
        run(gvf, dataset.config(), dataset.inputs())


@pytest.mark.parametrize(
    "change", [{"gvf": {"stride": 4}}, {"gvf": {"pooling": "avg"}}, {"clip": {"length": 4}}]
)
def test_what_changes_the_result_changes_the_work(
    dataset: Dataset, change: dict[str, dict[str, object]]
) -> None:
    inputs = dataset.inputs()
    run(gvf, dataset.config(), inputs)
    assert len(gvf.plan(dataset.config(**change), inputs).shards) == 2
    same = dataset.config(gvf={"batch_size": 2, "shard_size": 1}, runtime={"device": "auto"})
    assert gvf.plan(same, inputs).existing is not None


def imported(dataset: Dataset, names: list[str], size: int = 128) -> str:
    values = np.arange(len(names) * size, dtype=np.float32).reshape(len(names), size)
    path = dataset.folder / "released.h5"
    path.write_bytes(h5_bytes(GvfTable(source="x", names=tuple(names), values=values)))
    return str(path)


def test_a_file_is_imported_as_it_is(dataset: Dataset) -> None:
    file = imported(dataset, ["a", "b", "other", "v_c"])
    report, computed = run(gvf, dataset.config(gvf={"file": file}), dataset.inputs())
    assert computed == []
    table = read_gvf(report.artifact.file("gvf.parquet"))
    assert table.names == ("a", "b", "v_c")
    np.testing.assert_array_equal(table.lookup("v_c"), np.arange(384, 512))
    marker = json.loads(contents(report.artifact)["artifact.json"])
    assert file not in json.dumps(marker)


def test_an_imported_file_must_have_every_video(dataset: Dataset) -> None:
    config = dataset.config(gvf={"file": imported(dataset, ["a", "b"])})
    with pytest.raises(GvfError, match=r"released\.h5: no GVF for 1 of the videos: 'v_c'"):
        run(gvf, config, dataset.inputs())


def test_an_imported_file_must_be_of_the_encoders_size(dataset: Dataset) -> None:
    config = dataset.config(gvf={"file": imported(dataset, ["a", "b", "v_c"], size=512)})
    with pytest.raises(GvfError, match=r"size 512, but the encoder r2plus1d_tiny gives .* 128"):
        run(gvf, config, dataset.inputs())


def test_a_dataset_without_clips_is_refused(dataset: Dataset) -> None:
    inputs = dataset.inputs(without_clips=["a", "b", "v_c"])
    with pytest.raises(GvfError, match="no video has a segment that holds a clip"):
        gvf.plan(dataset.config(), inputs)


def test_a_damaged_shard_is_made_again(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    config, inputs = dataset.config(), dataset.inputs()
    report, computed = run(gvf, config, inputs)
    expected = contents(report.artifact)
    storage.delete(report.artifact.uri, recursive=True)
    shard = storage.list_objects(storage.join(config.root_uri, "shards"))[0]
    storage.write_bytes(shard.uri, storage.read_bytes(shard.uri)[:-20])
    report, again = run(gvf, config, inputs)
    assert "a damaged shard is left out" in caplog.text
    assert set(again) < set(computed)
    assert contents(report.artifact) == expected


def test_a_shard_of_an_unknown_version_is_refused(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, inputs = dataset.config(), dataset.inputs()
    later = gvf_schema(128)
    monkeypatch.setattr(gvf, "gvf_schema", lambda size: dataclasses.replace(later, version=2))
    gvf.run_shard(config, inputs, gvf.plan(config, inputs).shards[0])
    with pytest.raises(ArtifactError, match="version 2 of the table 'gvf' is unknown"):
        gvf.plan(config, inputs)

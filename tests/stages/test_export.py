from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tests.features.actionformer_reader import Reader
from tests.features.clips import CLIP, ENCODER
from tests.stages.dataset import Dataset
from tests.stages.running import contents, run
from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import EncoderConfig
from tsp_core.errors import AnnotationError, ArtifactError, ConfigError, TooManyBadVideosError
from tsp_core.features.extraction import Extractor
from tsp_core.model.checkpoint import save_checkpoint
from tsp_core.model.checkpoint_info import CheckpointInfo
from tsp_core.model.heads import TSPModel
from tsp_core.model.weights import load_encoder
from tsp_core.stages import export


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path, ["a", "b", "v_c"])


def features(dataset: Dataset, name: str, weights: str = "random:1") -> np.ndarray:
    loaded = load_encoder(EncoderConfig(name=ENCODER, weights=weights))
    extractor = Extractor(loaded.encoder, loaded.feature_size, device="cpu")
    return extractor.extract_row(dataset.rows[name], CLIP, 8).features


def manifest(artifact: ArtifactRef) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(storage.read_bytes(artifact.file("manifest.json")))
    return found


def test_all_formats_hold_the_encoders_features(dataset: Dataset) -> None:
    config = dataset.config(export={"formats": ["h5", "npy", "pkl", "parquet"]})
    report, computed = run(export, config, dataset.inputs())
    assert computed == ["a", "b", "v_c"]
    assert (report.summary["videos"], report.summary["clips"]) == (3, 12)
    expected = features(dataset, "b")
    folder = storage.local_path(report.artifact.uri)
    with h5py.File(folder / "features.h5") as file:
        assert sorted(file) == ["a", "b", "v_c"]
        np.testing.assert_array_equal(file["b"][()], expected)
    np.testing.assert_array_equal(np.load(folder / "npy" / "b.npy"), expected)
    assert (folder / "pkl" / "b.pkl").is_file()
    table = schemas.read_table(report.artifact.file("features.parquet"), "features")
    assert table["video"].to_pylist() == [name for name in ("a", "b", "v_c") for _ in range(4)]


def test_the_manifest_names_what_made_the_features_and_no_path(dataset: Dataset) -> None:
    report, _ = run(export, dataset.config(), dataset.inputs())
    found = manifest(report.artifact)
    assert found["encoder"] == ENCODER
    assert found["checkpoint"].startswith("random:1")
    assert found["videos"]["a"]["rows"] == 4
    assert found["videos"]["a"]["num_frames"] == 64
    files = contents(report.artifact)
    assert not any(str(dataset.folder).encode() in content for content in files.values())


def test_a_rerun_computes_new_videos_alone(dataset: Dataset) -> None:
    config = dataset.config(export={"formats": ["npy"]})
    first, _ = run(export, config, dataset.inputs())
    assert export.plan(config, dataset.inputs()).existing == first.artifact
    dataset.add("aa")
    second, computed = run(export, config, dataset.inputs())
    assert computed == ["aa"]
    old, new = contents(first.artifact), contents(second.artifact)
    assert set(new) - set(old) == {"npy/aa.npy"}
    assert all(new[name] == old[name] for name in old if name.startswith("npy/"))


def test_a_changed_format_decodes_nothing(dataset: Dataset) -> None:
    inputs = dataset.inputs()
    run(export, dataset.config(), inputs)
    report, computed = run(export, dataset.config(export={"formats": ["npy"]}), inputs)
    assert computed == []
    assert "npy/a.npy" in contents(report.artifact)


def test_a_run_that_stopped_comes_to_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    config = dataset.config(export={"formats": ["h5", "npy", "parquet"], "recipes": ["bmn"]})
    inputs = dataset.inputs()
    whole, _ = run(export, config, inputs)
    other = config.model_copy(update={"root": str(tmp_path / "other")})
    plan = export.plan(other, inputs)
    export.run_shard(other, inputs, plan.shards[1])
    resumed, computed = run(export, other, inputs)
    assert computed == ["a", "b"]
    assert contents(resumed.artifact) == contents(whole.artifact)


def test_videos_without_features_are_listed_with_the_reason(dataset: Dataset) -> None:
    dataset.damage("b")
    dataset.rows["b"]["content_hash"] = storage.sha256_of_file(dataset.folder / "b.mp4")
    dataset.refuse("d")
    config = dataset.config(ingest={"max_bad_fraction": 0.5})
    report, _ = run(export, config, dataset.inputs())
    found = manifest(report.artifact)
    assert set(found["videos"]) == {"a", "v_c"}
    assert found["quarantined"]["d"] == {"code": "unreadable", "reason": "not a video"}
    assert found["quarantined"]["b"]["code"] == "unreadable"
    assert report.summary["quarantined"] == 2
    with h5py.File(storage.local_path(report.artifact.file("features.h5"))) as file:
        assert sorted(file) == ["a", "v_c"]
    strict = dataset.config(ingest={"max_bad_fraction": 0.2}, export={"formats": ["npy"]})
    with pytest.raises(TooManyBadVideosError, match="export: 1 of 3 videos failed"):
        export.finish(strict, dataset.inputs(), export.plan(strict, dataset.inputs()))


def test_a_short_video_has_one_padded_row(dataset: Dataset) -> None:
    dataset.add("s", seconds=0.3)
    report, _ = run(export, dataset.config(), dataset.inputs())
    found = manifest(report.artifact)["videos"]
    assert (found["s"]["rows"], found["s"]["is_padded"]) == (1, True)
    assert not found["a"]["is_padded"]


def test_only_the_chosen_subsets(dataset: Dataset) -> None:
    config = dataset.config(export={"subsets": ["validation"]})
    report, computed = run(export, config, dataset.inputs())
    assert computed == ["v_c"]
    assert set(manifest(report.artifact)["videos"]) == {"v_c"}
    wrong = dataset.config(export={"subsets": ["test"]})
    with pytest.raises(AnnotationError, match=r"annotated as 'test'; the subsets are training, v"):
        export.plan(wrong, dataset.inputs())


def test_videos_annotated_as_empty_are_in_their_subset(dataset: Dataset) -> None:
    dataset.add("v_empty")
    inputs = dataset.inputs()
    rows = schemas.read_table(inputs["annotate"].file("segments.parquet"), "segments")
    buffer = io.BytesIO()
    pq.write_table(rows.filter(pc.field("video") != "v_empty"), buffer)
    subsets = {"training": ["a", "b"], "validation": ["v_c", "v_empty"]}
    inputs["annotate"] = artifacts.publish(
        str(dataset.root),
        Recipe(stage="annotate", version=1, config={"subsets": subsets}, inputs={}),
        {"segments.parquet": buffer.getvalue(), "subsets.json": json.dumps(subsets).encode()},
    )
    config = dataset.config(export={"subsets": ["validation"], "recipes": ["opentad", "bmn"]})
    report, computed = run(export, config, inputs)
    assert computed == ["v_c", "v_empty"]
    assert set(manifest(report.artifact)["videos"]) == {"v_c", "v_empty"}
    folder = storage.local_path(report.artifact.uri) / "recipes"
    (path,) = (folder / "opentad").rglob("annotations.json")
    entry = json.loads(path.read_text())["database"]["v_empty"]
    assert (entry["subset"], entry["annotations"]) == ("validation", [])
    (path,) = (folder / "bmn").rglob("video_info.csv")
    assert "v_empty,validation" in path.read_text()


def test_annotations_matter_only_where_they_are_used(dataset: Dataset) -> None:
    inputs = dataset.inputs()
    other = {**inputs, "annotate": inputs["annotate"].model_copy(update={"digest": "other"})}
    plain, recipes = dataset.config(), dataset.config(export={"recipes": ["bmn"]})
    assert export.plan(plain, inputs).recipe == export.plan(plain, other).recipe
    assert export.plan(recipes, inputs).recipe != export.plan(recipes, other).recipe


def test_recipes_know_the_annotations(dataset: Dataset) -> None:
    names = ["actionformer", "opentad", "gtad", "bmn", "pgcn", "bmt"]
    report, _ = run(export, dataset.config(export={"recipes": names}), dataset.inputs())
    folder = storage.local_path(report.artifact.uri) / "recipes"
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    options = yaml.safe_load((folder / "actionformer/configs/small_tsp.yaml").read_text())
    assert options["dataset"]["default_fps"] == CLIP.frame_rate
    assert options["dataset"]["feat_stride"] == 8
    path = folder / "actionformer" / options["dataset"]["json_file"]
    database = json.loads(path.read_text())["database"]
    assert database["v_c"]["subset"] == "validation"
    assert database["a"]["annotations"] == [
        {"label": "class 0", "label_id": 0, "segment": [0.5, 2.5]}
    ]


@pytest.mark.parametrize("training", [True, False])
def test_recipes_place_rows_at_their_times(dataset: Dataset, training: bool) -> None:
    """As ActionFormer reads them; the real one does in `tests/downstream`."""
    config = dataset.config(export={"recipes": ["actionformer"]})
    report, _ = run(export, config, dataset.inputs())
    folder = storage.local_path(report.artifact.uri)
    reader = Reader(folder / "recipes" / "actionformer", "small_tsp.yaml", training=training)
    assert list(reader.items) == (["a", "b"] if training else ["v_c"])
    times = schemas.read_table(report.artifact.file("times.parquet"), "times").to_pylist()
    for video in reader.items:
        with h5py.File(folder / "features.h5") as file:
            np.testing.assert_array_equal(reader.features(video), file[video][()])
        seconds = reader.seconds(np.arange(len(reader.features(video))))
        expected = [row["t_center"] for row in times if row["video"] == video]
        frame = float(
            1 / Fraction(*(dataset.rows[video][f"frame_rate_{x}"] for x in ("num", "den")))
        )
        np.testing.assert_allclose(seconds, expected, atol=frame)  # clips start at real frames
        segments, _ = reader.truth(video)
        np.testing.assert_allclose(reader.seconds(segments), [[0.5, 2.5]], atol=1e-6)


def test_the_pretrained_checkpoint_is_the_default(dataset: Dataset, tmp_path: Path) -> None:
    encoder = load_encoder(EncoderConfig(name=ENCODER, weights="random:5")).encoder
    model = TSPModel(encoder, encoder_name=ENCODER, num_classes=2, heads="tsp", use_gvf=False)
    info = CheckpointInfo(encoder=ENCODER, heads="tsp", use_gvf=False, num_classes=2, clip=CLIP)
    save_checkpoint(tmp_path / "best.pth", model, info, extra=None)
    recipe = Recipe(stage="pretrain", version=1, config={}, inputs={})
    pretrain = artifacts.publish(
        str(dataset.root), recipe, {"best.pth": tmp_path / "best.pth"}, summary={}
    )
    inputs = {**dataset.inputs(), "pretrain": pretrain}
    config = dataset.config(export={"checkpoint": None})
    report, _ = run(export, config, inputs)
    with h5py.File(storage.local_path(report.artifact.file("features.h5"))) as file:
        np.testing.assert_array_equal(file["a"][()], features(dataset, "a", "random:5"))
    sha256 = storage.sha256_of_file(tmp_path / "best.pth")
    assert manifest(report.artifact)["checkpoint"] == f"sha256:{sha256}"
    by_path = dataset.config(export={"checkpoint": str(tmp_path / "best.pth")})
    assert export.plan(by_path, inputs).existing == report.artifact


def test_a_checkpoint_that_was_trained_on_other_clips_is_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    encoder = load_encoder(EncoderConfig(name=ENCODER, weights="random:5")).encoder
    model = TSPModel(encoder, encoder_name=ENCODER, num_classes=2, heads="tsp", use_gvf=False)
    other = CLIP.model_copy(update={"frame_rate": 25.0})
    info = CheckpointInfo(encoder=ENCODER, heads="tsp", use_gvf=False, num_classes=2, clip=other)
    save_checkpoint(tmp_path / "best.pth", model, info)
    config = dataset.config(export={"checkpoint": str(tmp_path / "best.pth")})
    plan = export.plan(config, dataset.inputs())
    message = r"clip: frame_rate 10.0, but export\.checkpoint was trained with frame_rate 25\.0"
    with pytest.raises(ConfigError, match=message):
        export.run_shard(config, dataset.inputs(), plan.shards[0])


def test_weights_that_change_during_a_run_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    latest = tmp_path / "latest.pth"

    def write(seed: int) -> None:
        loaded = load_encoder(EncoderConfig(name=ENCODER, weights=f"random:{seed}"))
        torch.save(loaded.encoder.state_dict(), latest)

    write(5)
    config, inputs = dataset.config(export={"checkpoint": str(latest)}), dataset.inputs()
    plan = export.plan(config, inputs)
    first, second = plan.shards
    export.run_shard(config, inputs, first)
    write(6)
    with pytest.raises(ArtifactError, match="export: the encoder's weights have changed since"):
        export.run_shard(config, inputs, second)
    with pytest.raises(ArtifactError, match="export: the encoder's weights have changed since"):
        export.finish(config, inputs, plan)
    report, computed = run(export, config, inputs)
    assert computed == ["a", "b", "v_c"]
    with h5py.File(storage.local_path(report.artifact.file("features.h5"))) as file:
        np.testing.assert_array_equal(file["a"][()], features(dataset, "a", "random:6"))

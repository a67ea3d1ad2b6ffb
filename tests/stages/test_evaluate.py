"""Evaluate on a real run over three demo videos: the figures agree, and say what they rest on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.pages import explained
from tsp_core import pipeline, storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import ClipConfig, Config
from tsp_core.config.io import load_config
from tsp_core.demo import make_demo
from tsp_core.demo.scene import CLASSES
from tsp_core.errors import ConfigError
from tsp_core.evaluation.predict import Compute, OwnHeads, Subset, gvf_mismatch, predict_subset
from tsp_core.features.gvf import GvfTable
from tsp_core.model.checkpoint import load_checkpoint, save_checkpoint
from tsp_core.model.checkpoint_info import CheckpointInfo
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import Heads, TSPModel
from tsp_core.schemas import read_table
from tsp_core.stages import evaluate
from tsp_core.stages.base import StageReport

SMALL = (
    "clip={length: 4, frame_rate: 8, resize_height: 18, resize_width: 24, crop_size: 16}",
    "pretrain={epochs: 2, batch_size: 4, clips_per_segment: 2, workers: 0, warmup_epochs: 0}",
    "evaluate={clips_per_segment: 2, batch_size: 4, detector_epochs: 2, detector_width: 16}",
    "export={recipes: [], stride: 4}",
    "runtime={device: cpu}",
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo"), minutes=0.1)


@pytest.fixture(scope="module")
def config(config_file: Path) -> Config:
    return load_config(str(config_file), assignments=SMALL)


@pytest.fixture(scope="module")
def reports(config: Config) -> dict[str, StageReport]:
    return pipeline.run_all(config)


@pytest.fixture
def inputs(config: Config, reports: dict[str, StageReport]) -> Mapping[str, ArtifactRef]:
    found = {name: report.artifact for name, report in reports.items()}
    return pipeline.select_inputs(config, "evaluate", found)


def _json(artifact: ArtifactRef, name: str) -> Any:
    return json.loads(storage.read_bytes(artifact.file(name)))


def _predictions(artifact: ArtifactRef) -> pa.Table:
    return read_table(artifact.file("predictions.parquet"), "predictions")


def _run_with(config_file: Path, *assignments: str) -> StageReport:
    """Run all stages with another configuration in the same root; what is fresh is reused."""
    config = load_config(str(config_file), assignments=[*SMALL, *assignments])
    return pipeline.run_all(config)["evaluate"]


def _checkpoint(
    path: Path, heads: Heads, classes: tuple[str, ...], *, use_gvf: bool, **known: Any
) -> str:
    torch.manual_seed(0)
    model = TSPModel(
        build_encoder("r2plus1d_tiny"),
        encoder_name="r2plus1d_tiny",
        num_classes=len(classes),
        heads=heads,
        use_gvf=use_gvf,
    )
    info = CheckpointInfo(
        encoder="r2plus1d_tiny",
        heads=heads,
        use_gvf=use_gvf,
        num_classes=len(classes),
        classes=classes,
        clip=ClipConfig(length=4, frame_rate=8, resize_height=18, resize_width=24, crop_size=16),
        **known,
    )
    save_checkpoint(path, model, info)
    return f"export.checkpoint={path}"


def test_accuracies_are_those_of_the_best_epoch(reports: dict[str, StageReport]) -> None:
    pretrain = _json(reports["pretrain"].artifact, "training.json")
    best = pretrain["epochs"][pretrain["best_epoch"]]["valid"]
    heads = _json(reports["evaluate"].artifact, "metrics.json")["heads"]
    for head in ("action", "region"):
        assert heads[head]["accuracy"] == pytest.approx(best[f"accuracy_{head}"], abs=1e-12)
        summary = reports["evaluate"].summary[f"accuracy_{head}"]
        assert summary == pytest.approx(heads[head]["accuracy"])


def test_every_validation_clip_is_predicted_once(reports: dict[str, StageReport]) -> None:
    clips = read_table(reports["index"].artifact.file("clips.parquet"), "clips").to_pylist()
    usable = [c for c in clips if c["subset"] == "validation" and c["status"] == "ok"]
    table = _predictions(reports["evaluate"].artifact)
    assert len(table) == 2 * len(usable)
    assert table["action_logits"].null_count == table["region_logits"].null_count == 0
    assert table.schema.field("action_logits").type.list_size == len(
        _json(reports["annotate"].artifact, "classes.json")
    )


def test_the_report_tells_the_whole_run(reports: dict[str, StageReport]) -> None:
    artifact = reports["evaluate"].artifact
    page = storage.read_bytes(artifact.file("report.html")).decode()
    accuracy = reports["evaluate"].summary["accuracy_action"]
    assert f"{100 * accuracy:.1f} %" in page
    for heading in (
        *("Localization", "Best and worst videos", "Sensitivity to time", "Accuracy of the heads"),
        *("Data set", "Pretraining", "Exported features", "Configuration and versions"),
    ):
        assert f"<h2>{heading}</h2>" in page
    average = reports["evaluate"].summary["average_map_detector"]
    assert f"{100 * average:.1f} %" in page
    assert "data:image/jpeg;base64," in page, "the frames of the videos"
    assert reports["pretrain"].artifact.fingerprint in page
    text = storage.read_bytes(artifact.file("report.md")).decode()
    for chart in ("confusion.svg", "map.svg", "best_1.svg", "self_similarity_1.svg"):
        assert f"]({chart})" in text
        assert storage.read_bytes(artifact.file(chart)).startswith(b"<svg")


def test_every_figure_is_explained(reports: dict[str, StageReport]) -> None:
    metrics = _json(reports["evaluate"].artifact, "metrics.json")
    detector = metrics["localizers"]["detector"]
    parts = (
        *(metrics, metrics["settings"], metrics["heads"], metrics["heads"]["region"]),
        *(metrics["probes"], metrics["sensitivity"], detector, detector["proposals"]),
        *(detector["map"]["activitynet"], detector["by_length"]["coverage"][0]),
    )
    assert set().union(*parts) <= explained("evaluation.md", "metrics.json")
    manifest = _json(reports["export"].artifact, "manifest.json")
    parts = (manifest, manifest["row_time"], *manifest["videos"].values())
    assert set().union(*parts) <= explained("features.md", "`manifest.json`")


def test_figures_of_the_features_are_published(reports: dict[str, StageReport]) -> None:
    artifact, summary = reports["evaluate"].artifact, reports["evaluate"].summary
    metrics = _json(artifact, "metrics.json")
    assert metrics["metrics_version"] == 2
    assert set(metrics["localizers"]) == {"probes", "heads", "detector"}
    assert metrics["localizers"]["heads"]["classes_from"] == "head"
    assert metrics["localizers"]["heads"]["actionness_from"] == "head"
    found = metrics["localizers"]["detector"]["map"]["activitynet"]["average_map"]
    assert summary["average_map_detector"] == found
    assert summary["probe_region_auc"] == metrics["probes"]["region_auc"]
    assert 0 <= metrics["heads"]["region"]["auc"] <= 1
    detections = read_table(artifact.file("detections.parquet"), "detections")
    counts = {name: score["num_detections"] for name, score in metrics["localizers"].items()}
    assert len(detections) == sum(counts.values())
    segments = read_table(reports["annotate"].artifact.file("segments.parquet"), "segments")
    evaluated = {row["video"] for row in segments.to_pylist() if row["subset"] == "validation"}
    assert set(detections["video"].to_pylist()) <= evaluated


def test_without_localizers_only_the_heads_are_evaluated(
    reports: dict[str, StageReport], config_file: Path
) -> None:
    report = _run_with(config_file, "evaluate.localizers=[]", "evaluate.sensitivity=false")
    metrics = _json(report.artifact, "metrics.json")
    assert metrics["localizers"] == {}
    assert metrics["sensitivity"] is metrics["probes"] is None
    assert set(metrics["heads"]) == {"action", "region"}
    assert report.summary["notes"] == []
    page = storage.read_bytes(report.artifact.file("report.html")).decode()
    assert "Best and worst videos" not in page


def test_another_place_gives_the_same_bytes_and_none_names_this_machine(
    config: Config,
    reports: dict[str, StageReport],
    inputs: Mapping[str, ArtifactRef],
    config_file: Path,
    tmp_path: Path,
) -> None:
    moved = config.model_copy(update={"root": str(tmp_path / "root")})
    again = evaluate.finish(moved, inputs, evaluate.plan(moved, inputs)).artifact
    first = reports["evaluate"].artifact
    assert again.fingerprint == first.fingerprint
    assert again.digest == first.digest
    for path in Path(again.uri).iterdir():
        assert str(config_file.parent).encode() not in path.read_bytes(), path.name
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_progress_counts_clips_epochs_and_videos(
    config: Config, inputs: Mapping[str, ArtifactRef], tmp_path: Path
) -> None:
    moved = config.model_copy(update={"root": str(tmp_path)})
    seen: dict[str, list[tuple[float, float]]] = {}
    evaluate.finish(
        moved,
        inputs,
        evaluate.plan(moved, inputs),
        progress=lambda progress: seen.setdefault(progress.unit, []).append(
            (progress.done, progress.total)
        ),
    )
    assert list(seen) == ["clips", "videos by probes", "videos by heads", "epochs of the detector"]
    for unit, steps in seen.items():
        assert steps == sorted(steps), unit
        assert steps[-1][0] == steps[-1][1] > 0, unit


def test_weights_without_heads_give_features_and_say_so(
    reports: dict[str, StageReport], config_file: Path
) -> None:
    report = _run_with(config_file, "export.checkpoint=random:0")
    (note,) = report.summary["notes"]
    assert set(_json(report.artifact, "metrics.json")["localizers"]) == {"probes", "detector"}
    assert note.startswith("The features were exported from weights without heads")
    assert len(_predictions(report.artifact)) == 0
    assert _json(report.artifact, "metrics.json")["heads"] == {}
    page = storage.read_bytes(report.artifact.file("report.html")).decode()
    assert note in page
    assert "<h2>Pretraining</h2>" not in page


@pytest.mark.parametrize(("heads", "scored"), [("tac", ["action"]), ("region", ["region"])])
def test_one_head_alone_is_scored_alone(
    reports: dict[str, StageReport],
    config_file: Path,
    tmp_path: Path,
    heads: Heads,
    scored: list[str],
) -> None:
    classes = tuple(_json(reports["annotate"].artifact, "classes.json"))
    given = _checkpoint(tmp_path / "one.pth", heads, classes, use_gvf=False)
    report = _run_with(config_file, given)
    assert list(_json(report.artifact, "metrics.json")["heads"]) == scored
    assert report.summary["notes"] == []
    assert (set(_predictions(report.artifact)["label_index"].to_pylist()) >= {-1}) == (
        heads == "region"
    )


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (("other",), r"action head has 1 classes and the data set has \d"),
        (tuple(reversed(CLASSES)), r"was trained on other classes"),
    ],
)
def test_an_action_head_of_other_classes_is_not_scored(
    reports: dict[str, StageReport],
    config_file: Path,
    tmp_path: Path,
    classes: tuple[str, ...],
    note: str,
) -> None:
    given = _checkpoint(tmp_path / "other.pth", "tsp", classes, use_gvf=True)
    report = _run_with(config_file, given, f"annotate.classes=[{', '.join(CLASSES)}]")
    assert list(_json(report.artifact, "metrics.json")["heads"]) == ["region"]
    assert _predictions(report.artifact)["action_logits"].null_count > 0
    assert len(report.summary["notes"]) == 1
    assert re.search(note, report.summary["notes"][0])


@pytest.mark.parametrize(
    ("known", "made", "text"),
    [
        ({"gvf_pooling": "avg"}, {"gvf": {"pooling": "max"}}, r"\(pooling: avg, here: max\)"),
        ({"gvf_stride": 8}, {"gvf": {"stride": 16}}, r"\(stride: 8, here: 16\)"),
        ({"encoder_weights": "sha256:ab"}, {"weights": "sha256:cd"}, "initial weights: sha256:ab"),
        ({"encoder_weights": "sha256:ab"}, {"weights": "sha256:abcd"}, ""),
        ({"encoder_weights": "object:ab"}, {"weights": "sha256:abcd"}, ""),
        ({"gvf_pooling": "avg"}, {"file": "sha256:ab"}, ""),
        ({}, {"gvf": {"pooling": "max", "stride": 16}}, ""),
    ],
)
def test_gvfs_of_other_making_are_noticed(
    known: dict[str, Any], made: dict[str, Any], text: str
) -> None:
    info = CheckpointInfo(
        encoder="r2plus1d_tiny", heads="tsp", use_gvf=True, num_classes=2, **known
    )
    found = gvf_mismatch(info, made)
    assert bool(found) == bool(text)
    assert re.search(text, found)


def test_a_region_head_of_other_gvfs_is_not_run(
    reports: dict[str, StageReport], config_file: Path, tmp_path: Path
) -> None:
    given = _checkpoint(tmp_path / "avg.pth", "tsp", CLASSES, use_gvf=True, gvf_pooling="avg")
    report = _run_with(config_file, given)
    assert "(pooling: avg, here: max)" in report.summary["notes"][0]
    assert len(_predictions(report.artifact)) == 0


def test_heads_that_cannot_be_loaded_are_said_so(
    reports: dict[str, StageReport], config_file: Path, tmp_path: Path
) -> None:
    given = _checkpoint(tmp_path / "next.pth", "tsp", CLASSES, use_gvf=False)
    content = torch.load(tmp_path / "next.pth", weights_only=True)
    content["tsp"]["version"] = 99
    torch.save(content, tmp_path / "next.pth")
    report = _run_with(config_file, given)
    assert "version 99 of the entry 'tsp' is unknown" in report.summary["notes"][0]


def test_a_region_head_that_lacks_its_gvf_is_not_run(
    reports: dict[str, StageReport], config_file: Path, tmp_path: Path
) -> None:
    given = _checkpoint(tmp_path / "gvf.pth", "tsp", CLASSES, use_gvf=True)
    report = _run_with(config_file, given, "gvf.pooling=none")
    assert "takes global video features" in report.summary["notes"][0]
    assert len(_predictions(report.artifact)) == 0


def test_a_subset_without_clips_is_said_so(
    reports: dict[str, StageReport], config_file: Path
) -> None:
    only = ("index={subsets: [training]}", "pretrain.valid_subset=training", "pretrain.epochs=1")
    report = _run_with(config_file, *only)
    assert "subset validation has no segment to predict" in report.summary["notes"][0]


@pytest.mark.parametrize("key", ["subset", "train_subset"])
def test_a_subset_that_is_not_annotated_is_refused(
    config_file: Path, inputs: Mapping[str, ArtifactRef], key: str
) -> None:
    config = load_config(str(config_file), assignments=[*SMALL, f"evaluate.{key}=validatoin"])
    plan = evaluate.plan(config, inputs)
    with pytest.raises(
        ConfigError,
        match=rf"evaluate.{key}: 'validatoin': the annotations have no such subset; .*training, "
        r"validation; did you mean 'validation'\?",
    ):
        evaluate.finish(config, inputs, plan)


def test_videos_whose_gvf_failed_are_left_out_and_said_so(
    config: Config, inputs: Mapping[str, ArtifactRef]
) -> None:
    clips = read_table(inputs["index"].file("clips.parquet"), "clips")
    subset = Subset(
        name="validation",
        videos=read_table(inputs["ingest"].file("videos.parquet"), "videos"),
        clips=clips,
        classes=CLASSES,
        gvf=GvfTable(
            source="test",
            names=(),
            values=np.zeros((0, 128), dtype=np.float32),
            failed={str(name): "crashed" for name in clips["video"].unique().to_pylist()},
        ),
        clip=config.clip,
        clips_per_segment=1,
    )
    found = predict_subset(
        OwnHeads(checkpoint=load_checkpoint(inputs["pretrain"].file("best.pth"))),
        subset,
        precision="fp32",
        compute=Compute(device="cpu", batch_size=4, workers=0, cache_dir=None),
        progress=lambda done, total: None,
    )
    assert len(found.table) == 0
    assert re.match(r"\d+ segments are left out: their videos failed", found.notes[0])
    assert "no segment to predict" in found.notes[1]


def test_an_unchanged_run_is_reused(config: Config, reports: dict[str, StageReport]) -> None:
    found = {name: report.artifact for name, report in reports.items()}
    assert pipeline.run_stage(config, "evaluate", found).reused

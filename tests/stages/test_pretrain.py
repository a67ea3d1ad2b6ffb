from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.training.tiny import (
    CLASSES,
    CLIP,
    PRETRAIN,
    clips_table,
    global_features,
    videos_table,
    write_videos,
)
from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe, fingerprint_of
from tsp_core.config import Config, IngestConfig, ProxyConfig
from tsp_core.errors import ConfigError, GvfError
from tsp_core.model.checkpoint import load_checkpoint
from tsp_core.schemas import (
    CLIPS,
    PROXIES,
    VIDEOS,
    gvf_schema,
    read_table,
    table_from_rows,
    write_table,
)
from tsp_core.stages import pretrain
from tsp_core.stages.base import Plan, Progress
from tsp_core.training import history
from tsp_core.training.index import open_index


def make_config(root: Path, **settings: Any) -> Config:
    return Config.model_validate(
        {
            "root": str(root),
            "clip": CLIP.model_dump(),
            "encoder": {"name": "r2plus1d_tiny", "weights": "random:0"},
            "pretrain": {**PRETRAIN, "workers": 0, **settings},
        }
    )


def make_inputs(root: Path, *, version: int = 1, gvf_size: int = 128) -> dict[str, ArtifactRef]:
    """Publish what the stage reads; another version stands for other data."""
    paths = write_videos(root / "videos")
    gvf = global_features(paths)
    gvf_rows = [
        {"video": name, "status": "ok", "gvf": values[:gvf_size]} for name, values in gvf.items()
    ]
    tables = {
        "ingest": ("videos.parquet", VIDEOS, videos_table(paths)),
        "index": ("clips.parquet", CLIPS, shifted(clips_table(paths), 0.01 * version)),
        "gvf": (
            "gvf.parquet",
            gvf_schema(gvf_size),
            table_from_rows(gvf_rows, gvf_schema(gvf_size)),
        ),
    }
    files: dict[str, dict[str, Path | bytes]] = {
        "annotate": {"classes.json": json.dumps(CLASSES).encode()}
    }
    for stage, (name, schema, table) in tables.items():
        write_table(str(root / name), table, schema)
        files[stage] = {name: root / name}
    return {
        stage: artifacts.publish(
            str(root),
            Recipe(stage=stage, version=version, config={}, inputs={}),
            content,
            digest=f"{stage}-{version}",
        )
        for stage, content in files.items()
    }


def shifted(clips: pa.Table, seconds: float) -> pa.Table:
    """Move the segments, and so the admissible starts, later."""
    rows = clips.to_pylist()
    for row in rows:
        for name in ("t_start", "first_start"):
            row[name] += seconds
    return table_from_rows(rows, CLIPS)


def publish_result(config: Config, inputs: dict[str, ArtifactRef], plan: Plan) -> ArtifactRef:
    """Stand for a finished run."""
    history.remember(str(config.root), config.name, plan.recipe, CLASSES)
    content: dict[str, Path | bytes] = {"best.pth": plan.recipe.fingerprint.encode()}
    return artifacts.publish(config.root_uri, plan.recipe, content)


@pytest.mark.slow
def test_training_publishes_checkpoint_metrics_and_curves(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    plan = pretrain.plan(config, inputs)
    assert plan.existing is None
    seen: list[Progress] = []
    report = pretrain.finish(config, inputs, plan, progress=seen.append)

    checkpoint = load_checkpoint(report.artifact.file("best.pth"))
    assert checkpoint.info.classes == CLASSES
    assert checkpoint.info.clip == CLIP
    assert checkpoint.info.use_gvf
    assert (checkpoint.info.gvf_pooling, checkpoint.info.gvf_stride) == ("max", 16)
    released = torch.load(report.artifact.file("best.pth"), weights_only=False)["model"]
    assert {key.split(".")[0] for key in released} == {"features", "fc1", "fc2"}

    table = read_table(report.artifact.file("metrics.parquet"), "metrics")
    text = storage.read_bytes(report.artifact.file("metrics.csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["value"]) for row in rows] == table["value"].to_pylist()
    assert [row["name"] for row in rows] == table["name"].to_pylist()

    training = json.loads(storage.read_bytes(report.artifact.file("training.json")))
    best = training["epochs"][training["best_epoch"]]
    assert len(training["epochs"]) == 2
    assert checkpoint.info.epoch == training["best_epoch"] == report.summary["best_epoch"] - 1
    mean = (best["valid"]["accuracy_action"] + best["valid"]["accuracy_region"]) / 2
    assert math.isclose(report.summary["accuracy_mean"], mean)
    assert storage.read_bytes(report.artifact.file("curves.png")).startswith(b"\x89PNG")

    assert seen[-1].done == seen[-1].total == 6
    assert "epoch 2/2  valid  loss" in seen[-1].message
    left = storage.list_objects(str(tmp_path / "training"))
    assert [Path(item.uri).parts[-3] for item in left] == ["history"]
    assert pretrain.plan(config, inputs).existing == report.artifact


def test_what_determines_the_artifact(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    base = pretrain.plan(make_config(tmp_path), inputs).recipe.fingerprint
    for same in ({"workers": 3}, {"checkpoint_minutes": 1.0}, {"tensorboard": True}):
        assert pretrain.plan(make_config(tmp_path, **same), inputs).recipe.fingerprint == base
    for other in ({"seed": 1}, {"heads_lr": 0.5}, {"processes": 2}, {"heads": "region"}):
        assert pretrain.plan(make_config(tmp_path, **other), inputs).recipe.fingerprint != base
    clip = make_config(tmp_path).model_copy(update={"clip": CLIP.model_copy(update={"length": 4})})
    assert pretrain.plan(clip, inputs).recipe.fingerprint != base
    later = make_inputs(tmp_path, version=2)
    assert pretrain.plan(make_config(tmp_path), later).recipe.fingerprint != base


def test_it_depends_on_whether_and_which_proxies_are_used(tmp_path: Path) -> None:
    inputs, config = make_inputs(tmp_path), make_config(tmp_path)
    base = pretrain.plan(config, inputs).recipe.fingerprint
    found = []
    for names in ([], ["video0"], ["video0", "video1"], ["video0", "video9"]):
        ingest = with_proxies(tmp_path, inputs["ingest"], names)
        for codec in ("mjpeg", "h264"):
            section = IngestConfig(proxy=ProxyConfig(enabled=True, codec=codec))
            proxied = config.model_copy(update={"ingest": section})
            plan = pretrain.plan(proxied, {**inputs, "ingest": ingest})
            found.append(plan.recipe.fingerprint)
        assert pretrain.plan(config, {**inputs, "ingest": ingest}).recipe.fingerprint == base
    none, none_h264, one, one_h264, two, two_h264, other, other_h264 = found
    assert none == none_h264 == base  # no proxy is there to be used
    assert other == one  # the other one is of no video that training reads
    assert other_h264 == one_h264
    assert len({base, one, one_h264, two, two_h264}) == 5


def with_proxies(root: Path, ingest: ArtifactRef, content_hashes: list[str]) -> ArtifactRef:
    """The same artifact of ingest with a list of proxies."""
    rows = [{"content_hash": name, "size_bytes": 1} for name in content_hashes]
    path = root / "proxies.parquet"
    write_table(str(path), table_from_rows(rows, PROXIES), PROXIES)
    videos = storage.local_path(ingest.file("videos.parquet"))
    recipe = Recipe(stage="ingest", version=1, config={"proxies": content_hashes}, inputs={})
    files: dict[str, Path | bytes] = {path.name: path, videos.name: videos}
    return artifacts.publish(str(root), recipe, files, digest=ingest.digest)


def test_on_change_trains_when_the_data_changed(tmp_path: Path) -> None:
    config, old, new = (
        make_config(tmp_path),
        make_inputs(tmp_path),
        make_inputs(tmp_path, version=2),
    )
    published = publish_result(config, old, pretrain.plan(config, old))
    assert pretrain.plan(config, old).existing == published
    assert pretrain.plan(config, new).existing is None


def test_never_keeps_the_newest_of_the_configuration(tmp_path: Path) -> None:
    config = make_config(tmp_path, retrain="never")
    data = [make_inputs(tmp_path, version=version) for version in (1, 2, 3)]
    assert pretrain.plan(config, data[0]).existing is None
    always = make_config(tmp_path)
    first = publish_result(config, data[0], pretrain.plan(config, data[0]))
    assert pretrain.plan(config, data[2]).existing == first
    second = publish_result(always, data[1], pretrain.plan(always, data[1]))
    assert pretrain.plan(config, data[2]).existing == second
    assert pretrain.plan(config, data[0]).existing == second  # the newest, whatever the data
    other = make_config(tmp_path, retrain="never", seed=1)
    assert pretrain.plan(other, data[2]).existing is None  # another configuration
    unfinished = pretrain.plan(always, data[2])
    history.remember(str(always.root), always.name, unfinished.recipe, CLASSES)
    assert pretrain.plan(config, data[2]).existing == second  # it was never finished


@pytest.mark.parametrize("had_proxies", [False, True])
def test_never_keeps_a_run_when_proxies_come_or_go(tmp_path: Path, had_proxies: bool) -> None:
    plain, inputs = make_config(tmp_path, retrain="never"), make_inputs(tmp_path)
    inputs["ingest"] = with_proxies(tmp_path, inputs["ingest"], ["video0"])
    section = IngestConfig(proxy=ProxyConfig(enabled=True))
    proxied = plain.model_copy(update={"ingest": section})
    before, after = (proxied, plain) if had_proxies else (plain, proxied)
    kept = publish_result(before, inputs, pretrain.plan(before, inputs))
    plan = pretrain.plan(after, inputs)
    assert plan.existing == kept
    assert plan.notes == ("kept by retrain 'never' although proxies changed",)


def test_the_stride_of_gvfs_counts_where_there_are_any(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    for heads, counts in (("tsp", True), ("tac", False)):
        config = make_config(tmp_path, heads=heads)
        gvf = config.gvf.model_copy(update={"stride": 3})
        other = config.model_copy(update={"gvf": gvf})
        recipes = {pretrain.plan(item, inputs).recipe.fingerprint for item in (config, other)}
        assert len(recipes) == (2 if counts else 1)


def test_always_trains_once_more_each_time(tmp_path: Path) -> None:
    config = make_config(tmp_path, retrain="always")
    inputs = make_inputs(tmp_path)
    uris = []
    for _ in range(3):
        plan = pretrain.plan(config, inputs)
        assert plan.existing is None
        assert pretrain.plan(config, inputs) == plan  # an interrupted run is continued
        uris.append(publish_result(config, inputs, plan).uri)
    assert len(set(uris)) == 3
    on_change = make_config(tmp_path)
    assert pretrain.plan(on_change, inputs).existing is not None
    assert pretrain.plan(on_change, inputs).existing.uri == uris[-1]
    assert pretrain.plan(make_config(tmp_path, retrain="never"), inputs).existing.uri == uris[-1]


def test_earlier_runs_may_be_pruned(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path, retrain="always"), make_inputs(tmp_path)
    found = []
    for _ in range(3):
        plan = pretrain.plan(config, inputs)
        found.append(publish_result(config, inputs, plan))
    for earlier in found[:2]:
        storage.delete(earlier.uri, recursive=True)
    on_change = make_config(tmp_path)
    assert pretrain.plan(on_change, inputs).existing == found[2]
    following = pretrain.plan(config, inputs)
    assert following.existing is None
    assert following.recipe.config["run"] == 3
    storage.delete(found[2].uri, recursive=True)
    assert "run" not in pretrain.plan(on_change, inputs).recipe.config


def test_only_what_training_reads_makes_it_stale(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    before = pretrain.plan(config, inputs).recipe.fingerprint
    name = inputs["ingest"].file("videos.parquet")
    rows = read_table(name, "videos").to_pylist()
    write_table(name, table_from_rows([*rows, {**rows[0], "video": "new"}], VIDEOS), VIDEOS)
    assert pretrain.plan(config, inputs).recipe.fingerprint == before
    rows[0]["content_hash"] = "0" * 64
    write_table(name, table_from_rows(rows, VIDEOS), VIDEOS)
    assert pretrain.plan(config, inputs).recipe.fingerprint != before


def test_gvfs_of_videos_that_it_does_not_read_do_not_make_it_stale(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    before = pretrain.plan(config, inputs).recipe.fingerprint
    name, schema = inputs["gvf"].file("gvf.parquet"), gvf_schema(128)
    rows = read_table(name, "gvf").to_pylist()
    moved = table_from_rows([{**rows[0], "video": "new"}, *reversed(rows)], schema)

    def planned(table: pa.Table, settings: dict[str, Any]) -> str:
        write_table(str(tmp_path / "gvf.parquet"), table, schema)
        inputs_of_gvf = {"index": fingerprint_of(table.to_pydict())}
        recipe = Recipe(stage="gvf", version=1, config=settings, inputs=inputs_of_gvf)
        gvf = artifacts.publish(str(tmp_path), recipe, {"gvf.parquet": tmp_path / "gvf.parquet"})
        return pretrain.plan(config, {**inputs, "gvf": gvf}).recipe.fingerprint

    again = {"tried_again": 1, "decoder_limits": "x"}
    assert planned(moved, {}) == planned(moved, again) == before
    failed = {**rows[0], "status": "quarantined", "gvf": None, "reason": "it broke"}
    without = table_from_rows([failed, *rows[1:]], schema)
    assert len({before, planned(without, {}), planned(moved, {"gvf": {"stride": 4}})}) == 3


def test_a_gvf_of_another_size_is_refused_before_training(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path, gvf_size=64)
    with pytest.raises(GvfError, match=r"size 64, but the encoder r2plus1d_tiny .* 128"):
        pretrain.finish(config, inputs, pretrain.plan(config, inputs))


def test_a_missing_gvf_is_refused_by_name(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    name = inputs["gvf"].file("gvf.parquet")
    table = read_table(name, "gvf").to_pylist()
    del table[1]
    write_table(name, table_from_rows(table, gvf_schema(128)), gvf_schema(128))
    with pytest.raises(GvfError, match="'video1'"):
        pretrain.finish(config, inputs, pretrain.plan(config, inputs))


def test_a_video_that_failed_in_gvf_is_left_out(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    name = inputs["gvf"].file("gvf.parquet")
    table = read_table(name, "gvf").to_pylist()
    table[1].update(status="quarantined", gvf=None, reason="it broke")
    write_table(name, table_from_rows(table, gvf_schema(128)), gvf_schema(128))
    folder = tmp_path / "data"
    folder.mkdir()
    pretrain._write_data(folder, config, inputs)
    index = open_index(folder)
    rows = index.rows_of("training")
    named = {index.describe(int(row), 0.0) for row in rows}
    assert named
    assert not any("video1" in text for text in named)
    assert any("video2" in text for text in named)


def test_an_unknown_subset_is_refused(tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path, train_subset="train"), make_inputs(tmp_path)
    with pytest.raises(ConfigError, match=r"pretrain\.train_subset: 'train': .* training, valid"):
        pretrain.finish(config, inputs, pretrain.plan(config, inputs))


def test_cuda_is_asked_for_in_vain(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    config, inputs = make_config(tmp_path), make_inputs(tmp_path)
    config = config.model_copy(
        update={"runtime": config.runtime.model_copy(update={"device": "cuda"})}
    )
    with pytest.raises(ConfigError, match=r"runtime\.device: 'cuda': torch sees no CUDA device"):
        pretrain.finish(config, inputs, pretrain.plan(config, inputs))

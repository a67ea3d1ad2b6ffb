"""A whole study: what is shared is made once, what is there is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tests.study.made_up import config, published_files
from tsp_core import artifacts, storage
from tsp_core.config.io import load_config
from tsp_core.demo import make_demo
from tsp_core.errors import ArtifactError, WorkerLostError
from tsp_core.study.serial import run_study
from tsp_core.study.state import study_status

INITIAL = {"pretrain": {"heads": "tac"}}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fakes = FakeStages().install(monkeypatch)
    for name in ("pretrain", "evaluate"):
        fakes[name].more_files = published_files(name)
    trained = iter(range(100))

    def train() -> None:
        fakes["pretrain"].content = f"weights {next(trained)}"

    fakes["pretrain"].on_finish = train
    return fakes


def num_finished(fakes: FakeStages) -> dict[str, int]:
    return {name: calls.count("finish") for name, calls in fakes.calls().items()}


def test_what_runs_share_is_made_once(fakes: FakeStages, tmp_path: Path) -> None:
    study = config(tmp_path, initial=INITIAL)
    comparison = run_study(study)
    # two variants and two seeds; the initial training; the GVFs of the one variant that has them
    assert num_finished(fakes) == {
        "ingest": 1,
        "annotate": 1,
        "index": 1,
        "gvf": 1,
        "pretrain": 5,
        "export": 4,
        "evaluate": 4,
    }
    marker = artifacts.read_marker(comparison.uri)
    assert {"report.html", "report.md", "table.md", "table.csv", "runs.csv", "results.json"} <= set(
        marker.files
    )
    assert "trained it from weights drawn at random (seed 0)" in storage.read_bytes(
        comparison.file("report.md")
    ).decode().replace("\\", "")


def test_a_finished_study_is_reused(fakes: FakeStages, tmp_path: Path) -> None:
    first = run_study(config(tmp_path))
    fakes.forget_calls()
    assert run_study(config(tmp_path)) == first
    assert not sum(num_finished(fakes).values())


def test_a_study_that_was_interrupted_goes_on_where_it_was(
    fakes: FakeStages, tmp_path: Path
) -> None:
    train = fakes["pretrain"].on_finish

    def train_two() -> None:
        train()
        if fakes["pretrain"].calls.count("finish") == 3:
            raise WorkerLostError("killed")

    fakes["pretrain"].on_finish = train_two
    with pytest.raises(WorkerLostError, match="killed"):
        run_study(config(tmp_path))
    fakes.forget_calls()
    fakes["pretrain"].on_finish = train
    run_study(config(tmp_path))
    assert num_finished(fakes)["pretrain"] == num_finished(fakes)["evaluate"] == 2


def test_another_seed_costs_its_own_runs_alone(fakes: FakeStages, tmp_path: Path) -> None:
    first = run_study(config(tmp_path))
    fakes.forget_calls()
    second = run_study(config(tmp_path, seeds=[0, 1, 2]))
    assert second.fingerprint != first.fingerprint
    assert num_finished(fakes)["pretrain"] == num_finished(fakes)["evaluate"] == 2
    assert not num_finished(fakes)["ingest"]


def test_the_status_says_how_far_each_run_is(fakes: FakeStages, tmp_path: Path) -> None:
    study = config(tmp_path, initial=INITIAL, seeds=[0])
    initial, *variants = study_status(study)
    assert (initial.label, initial.state) == ("initial, seed 42", "missing")
    assert initial.reason.startswith("ingest: ")
    assert [(run.label, run.reason) for run in variants] == [
        ("tac, seed 0", "follows the initial training"),
        ("tsp, seed 0", "follows the initial training"),
    ]
    run_study(study)
    assert {run.state for run in study_status(study)} == {"done"}
    longer = config(tmp_path, initial=INITIAL, seeds=[0, 1])
    assert [run.state for run in study_status(longer)] == ["done"] * 3 + ["missing"] * 2
    assert "pretrain: " in study_status(longer)[-1].reason


def test_metrics_of_another_version_are_refused(fakes: FakeStages, tmp_path: Path) -> None:
    fakes["evaluate"].more_files = {"metrics.json": json.dumps({"metrics_version": 1}).encode()}
    with pytest.raises(ArtifactError, match=r"version 1 of the metrics is unknown .* reads 2"):
        run_study(config(tmp_path))


def test_a_real_study_end_to_end(tmp_path: Path) -> None:
    """Train an initial encoder and TSP from it, compare with untrained weights, on drawn videos."""
    made = make_demo(tmp_path / "demo", minutes=0.1)
    small = (
        "clip={length: 4, frame_rate: 8, resize_height: 18, resize_width: 24, crop_size: 16}",
        "pretrain={epochs: 1, batch_size: 4, clips_per_segment: 2, workers: 0, warmup_epochs: 0}",
        "evaluate={clips_per_segment: 2, batch_size: 4, localizers: [probes], sensitivity: false}",
        "export={recipes: [], stride: 4}",
        "gvf={pooling: none}",
        "runtime={device: cpu}",
        "study.initial={pretrain: {heads: tac}}",
        "study.seeds=[3]",
        "study.variants={untrained: {export: {checkpoint: 'random:0'}}, tsp: {}}",
    )
    study = load_config(str(made), assignments=small)
    comparison = run_study(study)
    values = json.loads(storage.read_bytes(comparison.file("results.json")))
    untrained, tsp = (values["variants"][name] for name in ("untrained", "tsp"))
    assert 0 <= tsp["figures"]["region_auc"]["mean"] <= 1
    assert set(tsp["figures"]) - set(untrained["figures"]) >= {"head_region", "head_action"}
    assert tsp["runs"][0]["num_steps"] > 0
    assert untrained["runs"][0]["num_steps"] is None
    assert values["initial"]["num_steps"] > 0
    page = storage.read_bytes(comparison.file("report.html")).decode()
    assert str(tmp_path) not in page
    assert run_study(study) == comparison

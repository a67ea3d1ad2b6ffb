"""What a run finds out before it decodes the first video, and what it tells at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import artifacts, pipeline
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.config.io import load_config
from tsp_core.errors import AnnotationError, ConfigError, WeightsError
from tsp_core.schemas import PROBLEMS, VIDEOS, TableSchema, table_from_rows, write_table
from tsp_core.status import left_out

ALL = STAGE_NAMES


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    found = FakeStages().install(monkeypatch)
    found["annotate"].subsets = ("training", "validation")
    return found


def config_of(folder: Path, *assignments: str) -> Config:
    path = folder / "config.yaml"
    path.write_text("name: cooking\nroot: store\n")
    return load_config(str(path), assignments=assignments)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pretrain.train_subset=train", "pretrain.train_subset: 'train': .* mean 'training'"),
        ("pretrain.valid_subset=test", "pretrain.valid_subset: 'test': .* training, validation"),
        ("evaluate.subset=valid", "evaluate.subset: 'valid': .* no such subset"),
        ("evaluate.train_subset=x", "evaluate.train_subset: 'x': .* no such subset"),
        ("export.subsets=[training, x]", r"export.subsets\[1\]: 'x': .* no such subset"),
        ("index.subsets=[x, validation]", r"index.subsets\[0\]: 'x': .* no such subset"),
        ("index.subsets=[training]", "pretrain.valid_subset: 'validation': not among index.subs"),
    ],
)
def test_wrong_subsets_are_found_first(
    fakes: FakeStages, tmp_path: Path, assignment: str, message: str
) -> None:
    config = config_of(tmp_path, assignment)
    with pytest.raises(ConfigError, match=message):
        pipeline.check_beginning(config, ALL)
    with pytest.raises(ConfigError, match=message):
        pipeline.run_all(config)
    assert fakes["ingest"].calls == []
    pipeline.check_beginning(config, ALL[:2])  # annotates, and uses no subset


@pytest.mark.parametrize(
    "assignments",
    [
        (),
        ("pretrain.train_subset=x", "export.checkpoint=own.pth"),  # nothing is trained
        ("pretrain.train_subset=x", "pretrain.retrain=never"),  # an older run may be kept
    ],
)
def test_subsets_that_nobody_uses_may_be_any(
    fakes: FakeStages, tmp_path: Path, assignments: tuple[str, ...]
) -> None:
    checked = []
    for stage, check in pipeline.beginning_checks(config_of(tmp_path, *assignments), ALL):
        check()
        checked.append(stage)
    assert {"annotate", "index", "export", "evaluate"} <= set(checked)  # and none objected


def test_weights_that_are_not_there_are_found_first(fakes: FakeStages, tmp_path: Path) -> None:
    config = config_of(tmp_path, "encoder.weights=none.pth")
    with pytest.raises(WeightsError, match=r"none\.pth"):
        pipeline.check_beginning(config, ALL)
    with pytest.raises(WeightsError, match=r"none\.pth"):
        pipeline.run_all(config)
    assert fakes["ingest"].calls == []
    pipeline.check_beginning(config, ("ingest", "annotate", "index"))


def test_a_file_that_holds_no_weights_is_found_first(fakes: FakeStages, tmp_path: Path) -> None:
    page = tmp_path / "r3d.pth"
    page.write_text("<html>Not found</html>")
    config = config_of(tmp_path, f"encoder.weights={page}")
    with pytest.raises(WeightsError, match=r"r3d\.pth': not a weights file"):
        pipeline.check_beginning(config, ALL)
    elsewhere = ("encoder.weights=kinetics", f"encoder.mirror={tmp_path / 'unmounted'}")
    pipeline.check_beginning(config_of(tmp_path, *elsewhere), ALL)  # all may be done


def test_a_checkpoint_to_export_with_is_looked_at_first(tmp_path: Path) -> None:
    config = config_of(tmp_path, "export.checkpoint=none.pth", "encoder.name=r2plus1d_tiny")
    with pytest.raises(WeightsError, match=r"none\.pth"):
        pipeline.check_beginning(config, ("export",))


@pytest.mark.parametrize(("odd", "is_told"), [("trainig", True), ("testing", False)])
def test_a_subset_that_looks_misspelt_is_told(
    fakes: FakeStages, tmp_path: Path, caplog: pytest.LogCaptureFixture, odd: str, is_told: bool
) -> None:
    fakes["annotate"].subsets = ("training", "validation", odd)
    pipeline.check_beginning(config_of(tmp_path), ALL)
    message = f"the subset {odd!r} of 1 videos is used by no stage; did you mean 'training'?"
    assert (message in caplog.text) == is_told


@pytest.mark.parametrize(("subset", "is_told"), [("training", True), ("validation", False)])
def test_an_evaluation_on_what_is_trained_on_is_told(
    fakes: FakeStages, tmp_path: Path, caplog: pytest.LogCaptureFixture, subset: str, is_told: bool
) -> None:
    fakes["annotate"].subsets = ("training", "validation")
    config = config_of(tmp_path, f"evaluate.subset={subset}")
    pipeline.check_beginning(config, ALL)
    message = "evaluate.subset: 'training' is the subset that is trained on"
    assert (message in caplog.text) == is_told
    caplog.clear()
    pipeline.check_beginning(config, ("ingest", "annotate"))
    assert caplog.text == ""


def test_annotations_are_read_where_they_are_wanted(fakes: FakeStages, tmp_path: Path) -> None:
    def refuse() -> None:
        raise AnnotationError("no such file")

    fakes["annotate"].on_read = refuse
    config = config_of(tmp_path)
    with pytest.raises(AnnotationError, match="no such file"):
        pipeline.check_beginning(config, ALL)
    pipeline.check_beginning(config, ("ingest",))
    pipeline.check_beginning(config, ("evaluate",))


def test_a_missing_gpu_is_found_first(
    fakes: FakeStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = config_of(tmp_path, "runtime.device=cuda")
    with pytest.raises(ConfigError, match="device: 'cuda', but torch finds no GPU here"):
        pipeline.check_beginning(config, ALL)
    pipeline.check_beginning(config, ("ingest", "annotate", "index"))  # they run no model
    pipeline.check_beginning(
        config_of(tmp_path, "runtime={device: cuda, runner: ray}"), ALL
    )  # others have GPUs
    pipeline.run_all(config_of(tmp_path))
    pipeline.check_beginning(config, ALL)  # everything is there
    always = config_of(tmp_path, "runtime.device=cuda", "pretrain.retrain=always")
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        pipeline.check_beginning(always, ALL)


def published(
    root: Path, stage: str, name: str, schema: TableSchema, codes: tuple[str, ...]
) -> ArtifactRef:
    rows = [
        {"video": str(number), "code": code, "status": "quarantined"}
        if schema is VIDEOS
        else {"video": str(number), "code": code, "file": "x", "value": "x", "message": "x"}
        for number, code in enumerate(codes)
    ]
    write_table(str(root / name), table_from_rows(rows, schema), schema)
    recipe = Recipe(stage=stage, version=1, config={"codes": codes}, inputs={})
    return artifacts.publish(str(root), recipe, {name: root / name})


def test_what_was_left_out_is_one_line_per_stage(tmp_path: Path) -> None:
    bad = ("missing", "truncated", "missing")
    ingest = published(tmp_path, "ingest", "quarantine.parquet", VIDEOS, bad)
    annotate = published(tmp_path, "annotate", "problems.parquet", PROBLEMS, ("beyond_end",) * 2)
    assert left_out({"ingest": ingest, "annotate": annotate}) == [
        "ingest: 3 videos in quarantine (missing 2, truncated 1); listed in "
        f"{ingest.uri}/quarantine.parquet",
        "annotate: 2 problems in the annotations (beyond_end 2); listed in "
        f"{annotate.uri}/problems.parquet",
    ]
    clean = published(tmp_path, "annotate", "problems.parquet", PROBLEMS, ())
    assert left_out({"annotate": clean}) == []

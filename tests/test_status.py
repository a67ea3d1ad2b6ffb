"""Status and the record of runs: done, stale and why, quarantined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import artifacts, pipeline, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.config.io import load_config
from tsp_core.errors import ArtifactError
from tsp_core.evaluation.blocks import Figures
from tsp_core.evaluation.report import Report, render_html
from tsp_core.runs import (
    RECORD_VERSION,
    artifacts_named,
    page_uri,
    read_record,
    record_uri,
    seconds_of,
    update_record,
)
from tsp_core.status import StageStatus, changes_of, num_problems, quarantined, status


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    return FakeStages().install(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text("name: cooking\nroot: store\n")
    return str(path)


def run(config: Config) -> None:
    pipeline.run_all(config)


def states(found: list[StageStatus]) -> dict[str, tuple[str, str]]:
    return {entry.stage: (entry.state, entry.reason) for entry in found}


def test_before_the_first_run_everything_is_missing(fakes: FakeStages, path: str) -> None:
    found = states(status(load_config(path)))
    assert list(found) == list(STAGE_NAMES)
    assert found["ingest"] == ("missing", "never run")
    assert found["annotate"] == ("missing", "follows ingest")
    assert found["evaluate"][0] == "missing"


def test_after_a_run_everything_is_done(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    found = status(load_config(path))
    assert {entry.state for entry in found} == {"done"}
    assert all(entry.artifact is not None for entry in found)


def test_a_stale_stage_says_what_changed(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    found = states(status(load_config(path, assignments=["export.stride=8"])))
    assert found["pretrain"] == ("done", "")
    assert found["export"] == ("stale", "export.stride 16 → 8")
    assert found["evaluate"] == ("stale", "follows export")


def test_runtime_changes_leave_everything_done(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    changed = load_config(path, assignments=["export.batch_size=3", "runtime.workers=7"])
    assert {entry.state for entry in status(changed)} == {"done"}


def test_new_videos_are_counted(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    real = fakes["gvf"].plan

    def plan(config, inputs):
        planned = real(config, inputs)
        recipe = planned.recipe.model_copy(update={"inputs": {"ingest": "new", "index": "new"}})
        changes = {"recipe": recipe, "existing": None, "num_items": 12, "num_items_done": 10}
        return planned.model_copy(update=changes)

    fakes["gvf"].plan = plan  # type: ignore[method-assign]
    found = states(status(load_config(path)))
    assert found["gvf"] == (
        "stale",
        "index changed; ingest changed; 2 of 12 videos to do",
    )


def test_stages_that_are_not_used(fakes: FakeStages, path: str) -> None:
    found = states(status(load_config(path, assignments=["gvf.pooling=none"])))
    assert found["gvf"] == ("not used", "")


def test_changes_are_told_by_key() -> None:
    old = Recipe(
        stage="x", version=1, config={"a": {"b": 1, "c": [1]}, "gone": 1}, inputs={"i": "1"}
    )
    new = Recipe(stage="x", version=2, config={"a": {"b": 2, "c": [1]}}, inputs={"j": "1"})
    assert list(changes_of(old, new)) == [
        "the stage's code changed (version 1 → 2)",
        "a.b 1 → 2",
        "gone 1 → null",
        "i no longer used",
        "j now used",
    ]
    assert list(changes_of(old, old)) == []


def test_the_record_keeps_entries_of_other_stages(fakes: FakeStages, path: str) -> None:
    config = load_config(path)
    run(config)
    before = read_record(config)
    changed = load_config(path, assignments=["evaluate.subset=testing"])
    report = pipeline.run_stage(changed, "evaluate", pipeline.published(changed, "evaluate"))
    update_record(changed, {"evaluate": report.artifact})
    after = read_record(config)
    assert after.stages["evaluate"] != before.stages["evaluate"]
    assert {name: after.stages[name] for name in STAGE_NAMES[:-1]} == {
        name: before.stages[name] for name in STAGE_NAMES[:-1]
    }
    unused = load_config(path, assignments=["gvf.pooling=none"])
    assert "gvf" not in update_record(unused, {}).stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged record"),
        ("[]", "damaged record"),
        ('{"record_version": 0}', "record version 0 is unknown"),
        ('{"record_version": 1}', "damaged record"),
    ],
)
def test_a_damaged_record_is_refused_and_replaced(
    fakes: FakeStages, path: str, text: str, message: str
) -> None:
    config = load_config(path)
    storage.write_bytes(record_uri(config), text.encode())
    with pytest.raises(ArtifactError, match=message):
        status(config)
    run(config)
    assert set(read_record(config).stages) == set(STAGE_NAMES)


def published(root: Path, stage: str, files: dict[str, bytes | Path]) -> ArtifactRef:
    recipe = Recipe(stage=stage, version=1, config={}, inputs={})
    return artifacts.publish(str(root), recipe, files)


def test_videos_left_out_are_listed_once(tmp_path: Path) -> None:
    rows = [
        {"video": "a", "status": "ok"},
        {"video": "b", "status": "quarantined", "code": "truncated", "reason": "28 of 50 frames"},
    ]
    for name, schema in (("v", schemas.VIDEOS), ("g", schemas.gvf_schema(4))):
        uri = str(tmp_path / f"{name}.parquet")
        schemas.write_table(uri, schemas.table_from_rows(rows, schema), schema)
    reasons = {name: {"code": "crashed", "reason": "the decoder"} for name in ("b", "c")}
    manifest = {"manifest_version": 1, "quarantined": reasons}
    training = {"quarantined": [{"video": "d", "epoch": 1, "reason": "hangs"}]}
    current = {
        "ingest": published(tmp_path, "ingest", {"quarantine.parquet": tmp_path / "v.parquet"}),
        "gvf": published(tmp_path, "gvf", {"gvf.parquet": tmp_path / "g.parquet"}),
        "pretrain": published(
            tmp_path, "pretrain", {"training.json": json.dumps(training).encode()}
        ),
        "export": published(tmp_path, "export", {"manifest.json": json.dumps(manifest).encode()}),
        "evaluate": published(tmp_path, "evaluate", {}),
    }
    found = [(item.video, item.stage, item.code, item.reason) for item in quarantined(current)]
    assert found == [
        ("b", "ingest", "truncated", "28 of 50 frames"),
        ("d", "pretrain", "training", "hangs"),
        ("c", "export", "crashed", "the decoder"),
    ]


def test_problems_are_counted(tmp_path: Path) -> None:
    assert num_problems({}) == 0
    table = schemas.table_from_rows([{"code": "reversed"}] * 3, schemas.PROBLEMS)
    schemas.write_table(str(tmp_path / "p.parquet"), table, schemas.PROBLEMS)
    ref = published(tmp_path, "annotate", {"problems.parquet": tmp_path / "p.parquet"})
    assert num_problems({"annotate": ref}) == 3


def test_a_manifest_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    manifest = json.dumps({"manifest_version": 2, "quarantined": {}}).encode()
    ref = published(tmp_path, "export", {"manifest.json": manifest})
    with pytest.raises(ArtifactError, match=r"manifest version 2 is unknown .* reads 1; see docs"):
        quarantined({"export": ref})


def test_an_artifact_that_is_gone_is_told_from_one_never_made(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    record = read_record(load_config(path))
    storage.delete(record.stages["evaluate"].artifact.uri, recursive=True)
    found = states(status(load_config(path)))
    assert found["evaluate"] == ("stale", "its artifact is gone, deleted or pruned")


def test_a_stage_whose_code_changed_is_stale(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    real = fakes["gvf"].plan

    def plan(config, inputs):
        planned = real(config, inputs)
        recipe = planned.recipe.model_copy(update={"version": 2})
        return planned.model_copy(update={"recipe": recipe, "existing": None})

    fakes["gvf"].plan = plan  # type: ignore[method-assign]
    found = states(status(load_config(path)))
    assert found["gvf"] == ("stale", "the stage's code changed (version 1 → 2)")
    assert found["pretrain"] == ("stale", "follows gvf")


def test_training_always_is_done_and_says_so(fakes: FakeStages, path: str) -> None:
    run(load_config(path))
    found = states(status(load_config(path, assignments=["pretrain.retrain=always"])))
    assert found["pretrain"] == ("done", "retrain 'always': the next run trains anew")
    assert found["export"] == ("done", "")


def test_the_record_keeps_how_long_making_an_artifact_took(fakes: FakeStages, path: str) -> None:
    config = load_config(path)
    made = seconds_of(pipeline.run_all(config).values())
    assert None not in made.values()
    first = read_record(config)
    assert {name: entry.seconds for name, entry in first.stages.items()} == made
    again = pipeline.run_all(config)
    assert seconds_of(again.values()) == dict.fromkeys(made)
    assert read_record(config) == first
    assert not storage.exists(page_uri(config)), "these fakes publish no report"


def test_a_record_of_version_1_is_read(fakes: FakeStages, path: str) -> None:
    config = load_config(path)
    run(config)
    values = json.loads(storage.read_bytes(record_uri(config)))
    values["record_version"] = 1
    for entry in values["stages"].values():
        del entry["seconds"]
    storage.write_bytes(record_uri(config), json.dumps(values).encode())
    assert set(read_record(config).stages) == set(STAGE_NAMES)


def test_a_record_of_a_newer_release_is_left_as_it_is(
    fakes: FakeStages, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(path)
    text = json.dumps({"record_version": RECORD_VERSION + 1, "name": "n", "new": [1]}).encode()
    storage.write_bytes(record_uri(config), text)
    with pytest.raises(ArtifactError, match=f"version {RECORD_VERSION + 1} is of a newer release"):
        read_record(config)
    pipeline.run_all(config)
    assert storage.read_bytes(record_uri(config)) == text
    assert "this run is not recorded" in caplog.text
    storage.delete(record_uri(config))
    pipeline.run_all(config)
    assert set(read_record(config).stages) == set(STAGE_NAMES)


def test_the_page_of_a_run_has_its_times(path: str) -> None:
    config = load_config(path)
    report = render_html(Report(title="t", figures=Figures(figures=()), sections=()))
    recipe = Recipe(stage="evaluate", version=1, config={}, inputs={})
    artifact = artifacts.publish(config.root_uri, recipe, {"report.html": report.encode()})
    update_record(config, {"evaluate": artifact}, seconds={"evaluate": 75.25})
    page = storage.read_bytes(page_uri(config)).decode()
    assert ">evaluate</td>" in page
    assert ">75.2 s</td>" in page
    assert "75.2 s" not in report


def test_artifacts_that_a_configuration_names_are_known_by_any_name_of_the_store(path: str) -> None:
    config = load_config(
        path,
        assignments=[
            "root=s3a://bucket/out",
            "encoder.weights=s3://bucket/out/pretrain/0123456789abcdef/best.pth",
            "export.checkpoint=s3://bucket/output/pretrain/0123456789abcdef/best.pth",
        ],
    )
    assert artifacts_named(config) == ("pretrain/0123456789abcdef",)

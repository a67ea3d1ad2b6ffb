"""The flow on fake stages: order, reuse, concurrency, failure, what it records and shows."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact, FlowRun, State, TaskRun

from flows import stages as stage_flows
from flows.full_pipeline import full_pipeline
from flows.parameters import (
    ClipChanges,
    EvaluateChanges,
    ExportChanges,
    IngestChanges,
    StudyChanges,
)
from flows.study import study
from tasks.progress import observed_by
from tests.fakes import FakeStages
from tests.study.made_up import published_files
from tsp_core.artifacts import read_marker
from tsp_core.config import STAGE_NAMES
from tsp_core.config.io import load_config
from tsp_core.errors import AnnotationError, ArtifactError, ConfigError, StorageError
from tsp_core.runs import read_record
from tsp_core.schemas import VIDEOS, table_from_rows, write_table
from tsp_core.stages.base import Progress, Shard

pytestmark = [
    pytest.mark.server,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore"),  # Prefect's own
]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"name: Cook_Book\nroot: {tmp_path}/store\n")
    return str(path)


def failed(**parameters: Any) -> State[Any]:
    state: State[Any] = full_pipeline(**parameters, return_state=True)
    assert state.is_failed()
    return state


def last_flow_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(limit=1, sort="EXPECTED_START_TIME_DESC")[0]


def task_runs_of(run: FlowRun) -> list[TaskRun]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    found: list[TaskRun] = []
    with get_client(sync_client=True) as client:
        for _ in range(50):  # task runs arrive as events, a little later
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            )
            if found and all(item.state and item.state.is_final() for item in found):
                break
            time.sleep(0.2)
    return found


def artifacts_by_key() -> dict[str, Artifact]:
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"limit": 200}).json()
    return {item["key"]: Artifact.model_validate(item) for item in found}


def test_runs_all_stages_in_order_then_nothing_again(
    fakes: FakeStages, config: str, tmp_path: Path
) -> None:
    reports = full_pipeline(config)
    assert list(reports) == list(STAGE_NAMES)
    assert set(map(tuple, fakes.calls().values())) == {("plan", "finish")}
    assert re.fullmatch(r"Cook_Book \d{4}-\d\d-\d\d \d\d:\d\d", last_flow_run().name)
    record = json.loads((tmp_path / "store/runs/Cook_Book.json").read_text())
    assert {name: entry["artifact"]["digest"] for name, entry in record["stages"].items()} == {
        name: report.artifact.digest for name, report in reports.items()
    }

    fakes.forget_calls()
    again = full_pipeline(config)
    assert set(map(tuple, fakes.calls().values())) == {("plan",)}
    assert all(report.reused for report in again.values())
    assert {name: report.artifact for name, report in again.items()} == {
        name: report.artifact for name, report in reports.items()
    }


def test_a_change_reaches_what_depends_on_it(fakes: FakeStages, config: str) -> None:
    def ran(stride: int) -> list[str]:
        reports = full_pipeline(config, export=ExportChanges(stride=stride))
        return [name for name, report in reports.items() if not report.reused]

    full_pipeline(config)
    fakes["export"].content = "other features"
    assert ran(stride=8) == ["export", "evaluate"]
    assert ran(stride=4) == ["export"]  # it came to the same features, so what follows is fresh


def test_parameters_are_merged_field_by_field(
    fakes: FakeStages, config: str, tmp_path: Path
) -> None:
    Path(config).write_text(
        f"root: {tmp_path}/store\nclip: {{resize_height: 256, resize_width: 340}}\n"
        "ingest: {truncated: keep, names: path}\n"
    )
    changes = IngestChanges(names="stem")
    reports = full_pipeline(
        config, through="ingest", clip=ClipChanges(crop_size=224), ingest=changes
    )
    recipe = read_marker(reports["ingest"].artifact.uri).recipe.config["ingest"]
    assert (recipe["names"], recipe["truncated"]) == ("stem", "keep")


def test_shards_run_side_by_side_up_to_the_limit(fakes: FakeStages, config: str) -> None:
    fakes["gvf"].shards = 7
    fakes["gvf"].on_shard = lambda shard: time.sleep(0.2)
    full_pipeline(config, through="gvf", runtime={"workers": 3})  # type: ignore[arg-type]
    assert fakes["gvf"].calls.count("shard") == 7
    assert fakes["gvf"].max_at_a_time == 3
    names = {run.name for run in task_runs_of(last_flow_run())}
    assert {f"gvf shard {i}/7" for i in range(1, 8)} | {"gvf plan", "gvf"} <= names


def test_a_permanent_error_stops_the_chain_with_its_message(fakes: FakeStages, config: str) -> None:
    def fail() -> None:
        raise AnnotationError("a.json: video v1: segment 3: reversed")

    fakes["annotate"].on_finish = fail
    state = failed(config=config)
    assert "a.json: video v1: segment 3: reversed" in (state.message or "")
    assert fakes["annotate"].calls == ["plan", "finish"]
    assert not fakes["index"].calls
    record = read_record(load_config(config))
    assert [name for name, stage in record.stages.items() if stage.seconds is not None] == [
        "ingest"
    ]


def test_wrong_annotations_fail_before_a_video_is_decoded(fakes: FakeStages, config: str) -> None:
    def refuse() -> None:
        raise AnnotationError("rows.csv: line 3: ends before it starts")

    fakes["annotate"].on_read = refuse
    state = failed(config=config)
    assert "rows.csv: line 3: ends before it starts" in str(state.message)
    assert fakes["ingest"].calls == []
    assert full_pipeline(config=config, through="ingest")  # which needs none


def test_a_subset_that_is_not_annotated_fails_before_a_video_is_decoded(
    fakes: FakeStages, config: str
) -> None:
    fakes["annotate"].subsets = ("training", "validation")
    state = failed(config=config, evaluate=EvaluateChanges(subset="testing"))
    assert "evaluate.subset: 'testing': the annotations have no such subset" in str(state.message)
    assert fakes["ingest"].calls == []
    assert full_pipeline(config=config, evaluate=EvaluateChanges(subset="training"))


def test_what_was_left_out_is_told_at_the_end(
    fakes: FakeStages, config: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {"video": "a", "status": "quarantined", "code": "truncated", "reason": "cut"}
    write_table(str(tmp_path / "q.parquet"), table_from_rows([bad], VIDEOS), VIDEOS)
    fakes["ingest"].more_files = {"quarantine.parquet": (tmp_path / "q.parquet").read_bytes()}
    for _ in range(2):  # also where the stage is up to date
        caplog.clear()
        reports = full_pipeline(config)
        told = [r.getMessage() for r in caplog.records if "quarantine" in r.getMessage()]
        where = reports["ingest"].artifact.file("quarantine.parquet")
        assert set(told) == {f"ingest: 1 videos in quarantine (truncated 1); listed in {where}"}


def test_a_failed_shard_cancels_those_that_have_not_begun(fakes: FakeStages, config: str) -> None:
    def fail(shard: Shard) -> None:
        raise StorageError("no permission")

    fakes["ingest"].shards = 40
    fakes["ingest"].on_shard = fail
    state = failed(config=config, runtime={"workers": 2})
    assert "no permission" in (state.message or "")
    assert fakes["ingest"].calls.count("shard") < 40
    assert "finish" not in fakes["ingest"].calls


def test_a_wrong_configuration_fails_with_file_key_and_value(
    fakes: FakeStages, config: str
) -> None:
    Path(config).write_text("root: x\nexport: {stride: none}\n")
    state = failed(config=config)
    assert re.search(r"config\.yaml: export\.stride: 'none': ", state.message or "")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        full_pipeline("absent.yaml")


def test_progress_reaches_prefect_and_the_observer(fakes: FakeStages, config: str) -> None:
    seen: list[Progress] = []
    fakes["ingest"].shards = 2
    with observed_by(seen.append):
        full_pipeline(config, through="ingest", name="Progress.1")
    videos = [item.done for item in seen if item.unit == "videos"]
    assert videos == [0, 1, 2]
    assert [item.done for item in seen if item.unit == "epochs"] == [1, 2, 3]
    found = artifacts_by_key()
    assert found["progress-1-ingest-progress"].data == 100.0
    assert found["progress-1-ingest-progress"].description.startswith("2 of 2 videos")
    assert "progress-1-ingest-work" not in found  # work of a moment leaves no artifact
    overview = str(found["progress-1-overview"].data)
    assert "store/ingest/" in overview  # where everything is


def test_a_stage_flow_uses_what_is_published(fakes: FakeStages, config: str) -> None:
    with pytest.raises(ArtifactError, match="run `tsp ingest CONFIG` first"):
        stage_flows.index(config)
    full_pipeline(config, through="annotate")
    reports = stage_flows.index(config)
    assert list(reports) == ["index"]
    assert fakes["index"].calls[-1] == "finish"


def test_stages_that_are_not_used_do_not_run(fakes: FakeStages, config: str) -> None:
    changes = {"pooling": "none"}
    reports = full_pipeline(config, through="pretrain", gvf=changes)  # type: ignore[arg-type]
    assert list(reports) == ["ingest", "annotate", "index", "pretrain"]
    assert not fakes["gvf"].calls


def test_a_study_runs_its_variants_and_shows_the_comparison(
    fakes: FakeStages, config: str, tmp_path: Path
) -> None:
    for name in ("pretrain", "evaluate"):
        fakes[name].more_files = published_files(name)
    Path(config).write_text(
        f"name: Ablation\nroot: {tmp_path}/store\n"
        "encoder: {name: r2plus1d_tiny, weights: 'random:0'}\n"
        "study:\n  seeds: [0, 1]\n  initial: {pretrain: {heads: tac}}\n"
        "  variants: {tac: {pretrain: {heads: tac}}, tsp: {}}\n"
    )
    comparison = study(config, study=StudyChanges(seeds=(5,)))
    assert fakes["pretrain"].calls.count("finish") == 3
    assert fakes["ingest"].calls.count("finish") == 1
    assert "| tac | action | none | 30.0 |" in Path(comparison.file("table.md")).read_text()
    assert {"study comparison", "pretrain"} <= {run.name for run in task_runs_of(last_flow_run())}
    found = artifacts_by_key()
    assert "What the frozen features are good for" in str(found["ablation-study"].data)
    assert "ablation-tsp-5-overview" in found
    progress = found["ablation-study-progress"]
    assert progress.data == 100.0
    assert str(progress.description).startswith("2 of 2 runs")

    fakes.forget_calls()
    assert study(config, study=StudyChanges(seeds=(5,))) == comparison
    assert not any("finish" in calls for calls in fakes.calls().values())

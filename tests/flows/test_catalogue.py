"""The catalogue's flow on fake stages: what it starts, holds back and reports."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.catalogue import catalogue
from flows.full_pipeline import full_pipeline
from tasks import catalogue as module
from tests.fakes import FakeStages
from tsp_core import errors, storage
from tsp_core.catalogue import Outlook
from tsp_core.config import Config, StageName
from tsp_core.errors import AnnotationError, ConfigError, StorageUnavailableError

pytestmark = [
    pytest.mark.server,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore"),  # Prefect's own
]


@pytest.fixture
def deployment() -> Iterator[UUID]:
    """The deployment `tsp/full-pipeline`, of which no worker takes up any run."""
    made = full_pipeline.to_deployment("full-pipeline").apply()
    assert isinstance(made, UUID)
    yield made
    with get_client(sync_client=True) as client:
        client.request("DELETE", "/deployments/{id}", path_params={"id": made})


def last_table() -> list[dict[str, str]]:
    """The newest table of any catalogue."""
    chosen = {"artifacts": {"key": {"any_": ["tsp-catalogue"]}}}
    with get_client(sync_client=True) as client:
        (found,) = client.request("POST", "/artifacts/latest/filter", json=chosen).json()
    rows: list[dict[str, str]] = json.loads(found["data"])
    return rows


class Sets:
    """A catalogue whose datasets have names of their own in each test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = folder.name.replace("_", "-")

    def name(self, short: str) -> str:
        return f"{self.prefix}-{short}"

    def write(self, short: str, more: str = "") -> str:
        path = self.folder / f"{short}.yaml"
        path.write_text(f"name: {self.name(short)}\nroot: {self.folder}/out\n{more}\n")
        return str(path)

    def tick(self, **parameters: object) -> dict[str, str]:
        """States by short name; of a tick that failed, those of its table."""
        state: State[dict[str, str]] = catalogue(
            str(self.folder), through="index", return_state=True, **parameters
        )
        if state.is_completed():
            return {Path(uri).stem: text for uri, text in state.result().items()}
        self.message = state.message or ""
        return {Path(row["configuration"]).stem: row["state"] for row in last_table()}

    def runs(self, short: str) -> list[FlowRun]:
        with get_client(sync_client=True) as client:
            tag = {"tags": {"all_": [f"dataset:{self.name(short)}"]}}
            found = client.request(
                "POST", "/flow_runs/filter", json={"flow_runs": tag, "sort": "ID_DESC"}
            )
        return [FlowRun.model_validate(run) for run in found.json()]

    def end(self, short: str, kind: StateType, message: str = "") -> None:
        """Bring the run of a dataset that waits to an end."""
        (run,) = [run for run in self.runs(short) if run.state and not run.state.is_final()]
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, State(type=kind, message=message), force=True)


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path)


def test_without_a_deployment_the_datasets_run_here(fakes: FakeStages, sets: Sets) -> None:
    for name in ("a", "b"):
        sets.write(name)
    assert sets.tick() == {"a": "done", "b": "done"}
    assert [run.state_name for run in sets.runs("a")] == ["Completed"]
    fakes.forget_calls()
    assert sets.tick() == {"a": "up to date", "b": "up to date"}
    assert {call for calls in fakes.calls().values() for call in calls} == {"plan"}
    assert len(sets.runs("a")) == 1


def test_one_failure_and_one_broken_file_stop_no_other(fakes: FakeStages, sets: Sets) -> None:
    for name in ("a", "c"):
        sets.write(name)
    sets.write("b", "export: {stirde: 1}")

    def fail_once() -> None:
        fakes["annotate"].on_finish = lambda: None
        raise AnnotationError("a.json: row 3")

    fakes["annotate"].on_finish = fail_once
    assert sets.tick() == {"a": "failed", "b": "broken", "c": "done"}
    assert "ConfigError: 2 of 3 datasets cannot run" in sets.message
    assert "a.json: row 3" in sets.message
    assert "b.yaml: export.stirde: unknown key" in sets.message


def test_a_dataset_that_cannot_be_looked_at_stops_no_other(
    fakes: FakeStages, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable store, after all retries, and a bug."""
    sets.write("a", "runtime: {cache_dir: away}")
    sets.write("b", "runtime: {cache_dir: bug}")
    sets.write("c")
    real, looks = module.look_at, []

    def look(config: Config, through: StageName) -> Outlook:
        looks.append(config.name)
        if str(config.runtime.cache_dir).endswith("away"):
            raise StorageUnavailableError("s3://away/x: cannot list: time-out")
        if str(config.runtime.cache_dir).endswith("bug"):
            raise ZeroDivisionError("a bug")
        return real(config, through)

    monkeypatch.setattr(module, "look_at", look)
    quick = module.look_at_dataset.with_options(retries=1, retry_delay_seconds=[0])
    monkeypatch.setattr("flows.catalogue.look_at_dataset", quick)
    assert sets.tick() == {"a": "broken", "b": "broken", "c": "done"}
    assert looks.count(sets.name("a")) == 2
    assert "ConfigError: 2 of 3 datasets cannot run" in sets.message
    assert "a.yaml: cannot look at it now: StorageUnavailableError: s3://away/x" in sets.message
    assert "b.yaml: cannot look at it now: ZeroDivisionError: a bug" in sets.message


def test_each_dataset_is_looked_at_and_run_on_its_own_endpoint(
    fakes: FakeStages, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://before")
    different = "annotate: {min_background_clips: %d}\n"  # or they would share an artifact
    sets.write("a", f"{different % 1}runtime: {{endpoint_url: 'http://one'}}")
    sets.write("b", different % 2)
    sets.write("c", f"{different % 3}runtime: {{endpoint_url: 'http://two'}}")
    seen: dict[str, set[str | None]] = defaultdict(set)
    real = module.look_at

    def look(config: Config, through: StageName) -> Outlook:
        found = real(config, through)
        seen[config.name].add(storage.endpoint())
        return found

    monkeypatch.setattr(module, "look_at", look)
    fakes["annotate"].on_finish = lambda: seen["runs"].add(storage.endpoint())
    assert sets.tick() == {"a": "done", "b": "done", "c": "done"}
    assert seen == {
        sets.name("a"): {"http://one"},
        sets.name("b"): {"http://before"},
        sets.name("c"): {"http://two"},
        "runs": {"http://one", "http://before", "http://two"},
    }
    assert storage.endpoint() == "http://before"


def test_runs_are_started_after_many_tries_and_after_some_were_deleted(
    fakes: FakeStages, sets: Sets, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newest runs are looked at, so their number is not that of all tries."""
    monkeypatch.setattr("tasks.flow_runs.MAX_RUNS", 3)
    sets.write("a")
    for number in range(1, 8):
        assert sets.tick() == {"a": "started"}
        sets.end("a", StateType.CRASHED)
        assert len(sets.runs("a")) == number
    numbers = sorted(int((run.idempotency_key or "").rsplit("/", 1)[1]) for run in sets.runs("a"))
    assert numbers == list(range(1, 8))
    first = next(run for run in sets.runs("a") if (run.idempotency_key or "").endswith("/1"))
    with get_client(sync_client=True) as client:
        client.request("DELETE", "/flow_runs/{id}", path_params={"id": first.id})
    assert sets.tick() == {"a": "started"}
    assert len(sets.runs("a")) == 7
    assert sets.tick() == {"a": "under way"}


def test_a_key_that_an_earlier_run_has_starts_nothing_so_the_next_is_tried(
    fakes: FakeStages, sets: Sets, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the earlier tries are so long ago that the newest runs do not hold them."""
    sets.write("a")
    for _ in range(3):
        assert sets.tick() == {"a": "started"}
        sets.end("a", StateType.CRASHED)
    before = {run.id for run in sets.runs("a")}
    monkeypatch.setattr(module, "past_runs", lambda client, key: [])
    assert sets.tick() == {"a": "started"}
    (started,) = [run for run in sets.runs("a") if run.id not in before]
    assert started.state is not None
    assert started.state.is_scheduled()
    monkeypatch.setattr("flows.starting._MAX_KEYS", 1)
    assert sets.tick() == {"a": "failed"}
    assert "no run was started: the server gives earlier ones" in sets.message


def test_runs_of_the_deployment_are_started_once(
    fakes: FakeStages, sets: Sets, deployment: UUID
) -> None:
    uri = sets.write("a")
    assert sets.tick() == {"a": "started"}
    (run,) = sets.runs("a")
    assert (run.deployment_id, run.parent_task_run_id) == (deployment, None)
    assert run.parameters == {"config": uri, "through": "index"}
    assert run.name.startswith(sets.name("a"))
    assert sets.tick() == {"a": "under way"}
    sets.end("a", StateType.COMPLETED)
    full_pipeline(uri, through="index")
    assert sets.tick() == {"a": "up to date"}
    sets.write("a", "annotate: {min_background_clips: 1}")
    assert sets.tick() == {"a": "started"}
    assert not any(call == "shard" for calls in fakes.calls().values() for call in calls)


@pytest.mark.parametrize(
    ("kind", "error", "state"),
    [
        (StateType.CRASHED, "", "started"),
        (StateType.CANCELLED, "", "started"),
        (StateType.FAILED, "StorageUnavailableError: time-out", "started"),
        (StateType.FAILED, "ZeroDivisionError: division by zero", "started"),
        (StateType.FAILED, "AnnotationError: a.json: row 3", "held back"),
        (StateType.FAILED, "TrainingError: the loss is not finite", "held back"),
    ],
)
def test_what_failed_for_good_waits_for_a_change(
    fakes: FakeStages, sets: Sets, deployment: UUID, kind: StateType, error: str, state: str
) -> None:
    sets.write("a")
    assert sets.tick() == {"a": "started"}
    message = f"Flow run encountered an exception: {error}" if error else ""
    sets.end("a", kind, message)
    assert sets.tick() == {"a": state}
    assert len(sets.runs("a")) == (1 if state == "held back" else 2)
    if state == "held back":
        assert sets.tick(retry_failed=True) == {"a": "started"}
        sets.end("a", kind, message)
        sets.write("a", "ingest: {max_bad_fraction: 0.5}")
        assert sets.tick() == {"a": "started"}


def test_one_dataset_alone(fakes: FakeStages, sets: Sets) -> None:
    for name in ("a", "b"):
        sets.write(name)
    assert sets.tick(only=sets.name("b")) == {"b": "done"}
    with pytest.raises(ConfigError, match="only: 'x': not in the catalogue"):
        catalogue(str(sets.folder), only="x")


def test_the_table(
    fakes: FakeStages, sets: Sets, deployment: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    uri = sets.write("a")
    with caplog.at_level(logging.INFO, "flows"):
        sets.tick()
    assert "1 dataset: 1 started" in caplog.text
    (row,) = last_table()
    (run,) = sets.runs("a")
    assert row == {
        "dataset": sets.name("a"),
        "state": "started",
        "last run": row["last run"],
        "what is new": "ingest: never run; then annotate, index",
        "configuration": uri,
    }
    assert row["last run"].startswith(f"[{run.name}](")
    assert row["last run"].endswith(f"/runs/flow-run/{run.id}) Scheduled")


def test_every_permanent_error_is_known_by_its_name() -> None:
    from tasks.flow_runs import is_permanent

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.TspError) and name != "TspError":
            message = f"Flow run encountered an exception: {name}: text with OtherError"
            assert is_permanent(message) == issubclass(kind, errors.PermanentError)
    assert not is_permanent("Flow run encountered an exception: RuntimeError: AnnotationError")

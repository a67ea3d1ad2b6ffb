"""The catalogue on a real server: ticks, events, a broken dataset, notifications, a lost run."""

from __future__ import annotations

import datetime
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import automations
from tests.infra.compose import Backend, backend
from tests.servers import PrefectServer, prefect_worker
from tests.synthetic import VideoSpec, write_video
from tsp_core import schemas
from tsp_core.artifacts import open_artifact
from tsp_core.errors import ConfigError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Prefect's own
]
WAIT_SECONDS = 240.0
"""Far more than anything here takes on a machine that has other work to do."""
SECRET = "planted-t0ken-91c2"


def wait_for(what: str, is_there: Callable[[], Any]) -> Any:
    """Wait for something and return it; a false value is not it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := is_there()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return found


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A server with the deployments and a worker, and a catalogue.

    Attributes:
        backend: The Prefect server and its database; SQLite loses events when it is busy.
        sets: Folder of the catalogue.
    """

    backend: Backend
    sets: Path

    def api(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.backend.server.api_url}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )

        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs, the oldest first."""
        found = self.api("POST", "flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
        return sorted(found, key=lambda run: run["created"])

    def settled(self, num_runs: int) -> list[dict[str, Any]]:
        """Wait until so many runs have begun and all have ended."""

        def ended() -> bool:
            runs = self.runs()
            return len(runs) >= num_runs and all(
                run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") for run in runs
            )

        wait_for(f"the end of {num_runs} runs", ended)
        return self.runs()

    def tick(self) -> None:
        """What the schedule does when its time comes."""
        deployment = self.api("GET", "deployments/name/tsp-catalogue/catalogue")
        now = datetime.datetime.now(datetime.UTC).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": now}}
        self.api("POST", f"deployments/{deployment['id']}/create_flow_run", {"state": state})

    def ran_exactly(self, run: dict[str, Any], names: Sequence[str]) -> None:
        """Wait until a run's task runs are these and completed; they arrive as events, later."""
        chosen = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        expected = sorted((name, "COMPLETED") for name in names)

        def tasks() -> list[tuple[str, str]]:
            found = self.api("POST", "task_runs/filter", chosen)
            return sorted((task["name"], task["state_type"]) for task in found)

        deadline = time.monotonic() + WAIT_SECONDS
        while (found := tasks()) != expected and time.monotonic() < deadline:
            time.sleep(0.5)
        assert found == expected, f"{run['name']}: {run['state_type']}"

    def table(self) -> dict[str, dict[str, str]]:
        """The newest table of the catalogue, by dataset."""
        found = self.api(
            "POST", "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["tsp-catalogue"]}}}
        )
        return {row["dataset"]: row for row in json.loads(found[0]["data"])}


class Hook:
    """A web hook that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                hook.told.append(json.loads(self.rfile.read(size)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    @contextmanager
    def listening(self) -> Iterator[str]:
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{self.server.server_port}/hook"
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def add_dataset(sets: Path, name: str, num_videos: int) -> None:
    """Videos, annotations of the first one, and the configuration, which appears last."""
    folder = sets.parent / "data" / name
    add_videos(folder / "videos", range(num_videos))
    (folder / "rows.csv").write_text(
        f"video,label,t-start,t-end,subset\nv00,{name} work,0.1,0.9,training\n"
    )
    (sets / f"{name}.yaml").write_text(
        f"name: {name}\nroot: {sets.parent}/out\n"
        f"ingest: {{videos: {folder}/videos, shard_size: 4}}\n"
        f"annotate: {{annotations: {folder}/rows.csv, format: csv, min_background_clips: 0}}\n"
        "clip: {length: 4}\n"
    )


def add_videos(folder: Path, numbers: range) -> None:
    for number in numbers:
        write_video(folder / f"v{number:02d}.mp4", VideoSpec(num_frames=30 + number))


def num_videos(sets: Path, name: str) -> int:
    record = json.loads((sets.parent / "out" / "runs" / f"{name}.json").read_text())
    artifact = open_artifact(record["stages"]["ingest"]["artifact"]["uri"], "ingest")
    return schemas.read_table(artifact.file("videos.parquet"), "videos").num_rows


def num_probed(sets: Path) -> int:
    """Videos that were decoded by any run so far."""
    shards = (sets.parent / "out" / "shards" / "ingest").rglob("*.parquet")
    return sum(schemas.read_table(str(path), "probes").num_rows for path in shards)


PLANS = ("annotate", "annotate plan", "index", "index plan", "ingest", "ingest plan")
LOOKS = ("list datasets", "look at gym", "look at kitchen")


@pytest.fixture(scope="module")
def operation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    folder = tmp_path_factory.mktemp("operation")
    sets = folder / "sets"
    sets.mkdir()
    with backend(folder) as served:
        server = PrefectServer(
            api_url=served.server.api_url,
            environment={
                **served.server.environment,
                "PREFECT_API_URL": served.server.api_url,
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "TSP_CATALOGUE": str(sets),
            },
        )
        server.prefect("--no-prompt", "work-pool", "create", "--type", "process", "tsp")
        server.prefect("--no-prompt", "deploy", "--all")
        operation = Operation(backend=served, sets=sets)
        stop_at_index(operation)
        with (
            prefect_worker(server, "tsp", folder / "worker.log"),
            temporary_settings({PREFECT_API_URL: server.api_url}),
        ):
            yield operation


def stop_at_index(operation: Operation) -> None:
    """What follows the index would only take time here."""
    deployment = operation.api("GET", "deployments/name/tsp-catalogue/catalogue")
    parameters = {**deployment["parameters"], "through": "index"}
    operation.api("PATCH", f"deployments/{deployment['id']}", {"parameters": parameters})


def test_the_schedule_is_there_and_off(operation: Operation) -> None:
    deployment = operation.api("GET", "deployments/name/tsp-catalogue/catalogue")
    assert deployment["parameters"]["datasets"] == str(operation.sets)
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("*/15 * * * *", False)


def test_exactly_what_is_new_runs(operation: Operation) -> None:
    """A dataset and then ten videos arrive between ticks; events start the catalogue, too."""
    sets = operation.sets
    add_dataset(sets, "gym", 2)
    automations.notify("gym")  # starts the catalogue for this dataset alone
    look, gym = operation.settled(2)
    assert (look["parameters"]["only"], look["state_type"]) == ("gym", "COMPLETED")
    operation.ran_exactly(look, ["list datasets", "look at gym"])
    assert gym["tags"] == ["dataset:gym", "tsp"]
    operation.ran_exactly(gym, [*PLANS, "ingest shard 1/1"])

    add_dataset(sets, "kitchen", 2)
    operation.tick()
    *_, look, kitchen = operation.settled(4)
    operation.ran_exactly(look, LOOKS)
    assert kitchen["parameters"]["config"] == str(sets / "kitchen.yaml")
    operation.ran_exactly(kitchen, [*PLANS, "ingest shard 1/1"])
    states = {name: row["state"] for name, row in operation.table().items()}
    assert states == {"gym": "up to date", "kitchen": "started"}

    arriving = sets.parent / "arriving"
    add_videos(arriving, range(2, 12))
    for video in arriving.iterdir():
        video.rename(sets.parent / "data" / "kitchen" / "videos" / video.name)
    before = num_probed(sets)
    operation.tick()
    *_, look, more = operation.settled(6)
    row = operation.table()["kitchen"]
    assert row["what is new"].endswith("10 of 12 videos to do; then annotate, index")
    shards = [f"ingest shard {number}/3" for number in (1, 2, 3)]  # of four videos at most
    operation.ran_exactly(more, [*PLANS, *shards])
    assert (num_videos(sets, "kitchen"), num_videos(sets, "gym")) == (12, 2)
    assert num_probed(sets) - before == 10

    event = automations.changed_event(None)
    operation.api("POST", "events", [event])  # what a store's web hook sends
    runs = operation.settled(7)
    assert len(runs) == 7
    assert runs[-1]["parameters"]["only"] is None
    operation.ran_exactly(runs[-1], LOOKS)
    states = {name: row["state"] for name, row in operation.table().items()}
    assert states == {"gym": "up to date", "kitchen": "up to date"}
    assert {run["state_type"] for run in runs} == {"COMPLETED"}


def test_a_failure_is_told(operation: Operation) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    (operation.sets / "street.yaml").write_text("name: street\nroot: x\ningest: {vidoes: x}\n")
    hook = Hook()
    with hook.listening() as url:
        CustomWebhookNotificationBlock(
            name="ops",
            url=url,
            json_data={"subject": "{{subject}}", "body": "{{body}}", "token": "{{token}}"},
            secrets={"token": SECRET},
        ).save("ops", overwrite=True)
        with pytest.raises(ConfigError, match="--notify 'slack-webhook/absent': the server has no"):
            automations.apply("slack-webhook/absent")
        for _ in range(2):
            made = automations.apply("custom-webhook/ops")
            assert made == [automations.LOST, automations.FAILED]
        found = operation.api("POST", "automations/filter", {})
        names = [item["name"] for item in found]
        assert sorted(name for name in names if name in made) == sorted(made)
        before = len(operation.runs())
        operation.tick()
        run = operation.settled(before + 1)[-1]
        told = wait_for("the notification", lambda: hook.told)[0]
    assert run["state_type"] == "FAILED"
    assert told["subject"] == f"{run['name']}: Failed"
    assert "street.yaml: ingest.vidoes: unknown key; did you mean 'videos'?" in told["body"]
    assert told["token"] == SECRET
    stored = operation.backend.query("select row_to_json(b)::text from block_document b")
    assert '"ops"' in stored
    assert SECRET not in stored
    assert operation.table()["street"]["state"] == "broken"
    (operation.sets / "street.yaml").unlink()


def test_a_lost_run_is_marked_as_crashed(operation: Operation) -> None:
    automations.apply(None, heartbeat_seconds=4)
    flow = operation.api("GET", "deployments/name/tsp/full-pipeline")["flow_id"]
    tags = ["tsp", "dataset:lost"]
    run = operation.api(
        "POST", "flow_runs/", {"flow_id": flow, "tags": tags, "state": {"type": "RUNNING"}}
    )
    beat = {
        **automations.changed_event(None),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run['id']}"},
        "related": [{"prefect.resource.id": "prefect.tag.tsp", "prefect.resource.role": "tag"}],
    }
    operation.api("POST", "events", [beat])

    def lost() -> dict[str, Any] | None:
        found: dict[str, Any] = operation.api("GET", f"flow_runs/{run['id']}")
        return found if found["state_type"] != "RUNNING" else None

    found = wait_for("the end of the lost run", lost)
    assert found["state_type"] == "CRASHED"
    assert "No sign of life" in found["state"]["message"]

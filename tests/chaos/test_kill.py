"""SIGKILL at random moments loses nothing; `make chaos` is the long form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.dataset import make_dataset
from tests.chaos.harness import Chaos, Kill, draw_stages, table
from tests.chaos.inspection import look
from tests.faulty import faulty_proxy
from tests.servers import prefect_home, s3_store

SEED = int(os.environ.get("TSP_CHAOS_SEED", "0"))
KILLS = int(os.environ.get("TSP_CHAOS_KILLS", "60"))
KILLS_PER_SCENARIO = 4


def assert_nothing_lost(kills: list[Kill]) -> None:
    print(f"\n{table(kills)}")
    assert [kill for kill in kills if kill.faults] == [], table(kills)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("chaos-data"))


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened(config: Path, tmp_path: Path) -> None:
    chaos = Chaos(config=config, folder=tmp_path, parent=str(tmp_path / "roots"))
    chaos.run_reference()
    assert_nothing_lost(chaos.run_scenario(SEED, ["gvf", "pretrain", "export"]))


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_two_runs_at_once(config: Path, tmp_path: Path) -> None:
    chaos = Chaos(config=config, folder=tmp_path, parent=str(tmp_path / "roots"))
    chaos.run_reference()
    root = f"{chaos.parent}/both"
    for run in [chaos.start(root), chaos.start(root)]:
        chaos.finish(run)
    assert chaos.differences(root) == []
    assert look(root, is_finished=True)[1] == []


@pytest.mark.chaos
@pytest.mark.server
@pytest.mark.timeout(0)
def test_a_whole_run_on_a_store_that_fails(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of all requests fail, one way or another."""
    chaos = Chaos(config=config, folder=tmp_path, parent=str(tmp_path / "roots"))
    chaos.run_reference()
    with s3_store(tmp_path) as store, faulty_proxy(store.endpoint_url) as proxy:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        root = f"s3://{store.bucket}/run"
        proxy.spoil_at_random(SEED, 0.05, ("500", "503", "reset", "truncated", "lost", "unsigned"))
        with monkeypatch.context() as through_the_proxy:
            through_the_proxy.setenv("AWS_ENDPOINT_URL", proxy.url)
            chaos.finish(chaos.start(root))
        print(f"{len(proxy.faults)} of {len(proxy.seen)} requests failed")
        assert len(set(proxy.faults)) == 6
        assert chaos.differences(root) == []
        assert look(root, is_finished=True)[1] == []


@pytest.fixture(params=["local", "s3"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URI below which roots are made: a local folder, or a prefix on a real S3 server."""
    if request.param == "local":
        yield str(tmp_path / "roots")
        return
    with s3_store(tmp_path) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{store.bucket}/roots"


@pytest.mark.chaos
@pytest.mark.server
@pytest.mark.timeout(0)
@pytest.mark.parametrize("command", ["stages", "flow"])
def test_many_kills(config: Path, tmp_path: Path, places: str, command: str) -> None:
    """TSP_CHAOS_KILLS kills from TSP_CHAOS_SEED on: half on each store, a fifth under Prefect."""
    environment = {"PREFECT_HOME": str(prefect_home(tmp_path / "prefect")), "PREFECT_API_URL": ""}
    chaos = Chaos(
        config=config, folder=tmp_path, parent=places, command=command, environment=environment
    )
    chaos.run_reference()
    share = 0.4 if command == "stages" else 0.1
    stages = list(draw_stages(SEED, max(1, round(share * KILLS))))
    kills: list[Kill] = []
    for first in range(0, len(stages), KILLS_PER_SCENARIO):
        seed = SEED + len(kills)
        batch = sorted(stages[first : first + KILLS_PER_SCENARIO], key=list(chaos.durations).index)
        kills += chaos.run_scenario(seed, batch)
        print(table(kills[-len(batch) - 1 :]), flush=True)
    assert_nothing_lost(kills)

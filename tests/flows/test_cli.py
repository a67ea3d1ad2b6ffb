"""The command line without Prefect: exit codes, messages, one stage at a time, status."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tests.flows.running import Tsp
from tsp_core.config import STAGE_NAMES
from tsp_core.errors import (
    AnnotationError,
    StorageUnavailableError,
    TrainingError,
    WeightsError,
    WorkerLostError,
)
from tsp_core.stages.base import Progress, Shard

COMMANDS = (
    *("demo", "run", "status", "prune", "segments", "features", "init", "catalogue", "notify"),
    *("join", "automations"),
    *STAGE_NAMES,
)


def test_help_names_every_command(tsp: Tsp) -> None:
    code, out, _ = tsp("--help")
    assert code == 0
    for name in COMMANDS:
        assert f" {name} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(tsp: Tsp, name: str) -> None:
    code, out, _ = tsp(name, "--help")
    assert code == 0
    assert "Usage: tsp" in out


def test_stages_one_after_the_other(tsp: Tsp, fakes: FakeStages, config: str) -> None:
    fakes["ingest"].shards = 3
    for stage in STAGE_NAMES:
        code, out, err = tsp(stage, config, "--set", "runtime.workers=2")
        assert code == 0, err
        assert f"{stage}: done: " in err
    assert "report.html" in out
    code, out, err = tsp("status", config)
    assert code == 0
    assert out.count("done") == 7
    code, _, err = tsp("ingest", config)
    assert "ingest: up to date: " in err
    code, out, _ = tsp("status", config, "--set", "export.stride=8")
    assert "export.stride 16 → 8" in out


def test_a_stage_before_its_inputs_says_which_to_run(
    tsp: Tsp, fakes: FakeStages, config: str
) -> None:
    code, _, err = tsp("gvf", config)
    assert code == 2
    assert err.startswith("tsp: gvf: the artifact of the stage 'ingest' is not there")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AnnotationError("a.json: row 3"), 2),
        (WeightsError("w.pth: not a checkpoint"), 2),
        (TrainingError("the loss is not finite"), 1),
        (StorageUnavailableError("the store does not answer"), 1),
        (WorkerLostError("killed"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
    ids=repr,
)
def test_exit_codes_and_one_clear_message(
    tsp: Tsp, fakes: FakeStages, config: str, error: Exception, expected: int
) -> None:
    def fail() -> None:
        raise error

    fakes["ingest"].on_finish = fail
    code, _, err = tsp("ingest", config)
    assert code == expected
    assert str(error) in err
    assert "Traceback" not in err


def test_debug_shows_where_an_error_arose(
    tsp: Tsp, fakes: FakeStages, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSP_DEBUG", "1")
    code, _, err = tsp("gvf", config)
    assert code == 2
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "absent.yaml"), "absent.yaml: cannot read the configuration"),
        (("run", "CONFIG", "--set", "export.strid=1"), "did you mean 'stride'?"),
        (("run", "CONFIG", "--set", "extensions=[json]"), "--set extensions: runs take it from"),
        (("run", "CONFIG", "--set", "study.seeds=[0]"), "has no study.variants; write them there"),
        (("status", "CONFIG", "--set", "x"), "expected key=value"),
        (("run", "CONFIG", "--through", "cook"), "cook"),
        (("nonsense",), "No such command"),
        (("run",), "Missing argument"),
        (("demo", "--minutes", "-1"), "minutes: -1"),
        (
            ("features", "x.mp4", "--checkpoint", "random:0", "--out", "o", "--frame-rate", "0"),
            "clip.frame_rate: 0.0: ",
        ),
        (
            (
                "segments",
                "a.json",
                "--format",
                "activitynet",
                "--videos",
                "v.csv",
                "--out",
                "o.txt",
            ),
            "must end in .csv or .parquet",
        ),
    ],
)
def test_bad_input_is_exit_code_two(
    tsp: Tsp, config: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [config if item == "CONFIG" else item for item in arguments]
    code, _, err = tsp(*given)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_shards_run_side_by_side_and_progress_is_told(
    tsp: Tsp, fakes: FakeStages, config: str
) -> None:
    fakes["gvf"].shards = 4
    fakes["gvf"].on_shard = lambda shard: time.sleep(0.1)
    for stage in ("ingest", "annotate", "index"):
        tsp(stage, config)
    code, _, err = tsp("gvf", config, "--set", "runtime.workers=2")
    assert code == 0
    assert "gvf: 4/4 shards" in err
    assert fakes["gvf"].max_at_a_time == 2


def test_a_failed_shard_cancels_those_that_have_not_begun(
    tsp: Tsp, fakes: FakeStages, config: str
) -> None:
    def fail(shard: Shard) -> None:
        raise AnnotationError("stop")

    fakes["ingest"].shards = 40
    fakes["ingest"].on_shard = fail
    code, _, _ = tsp("ingest", config, "--set", "runtime.workers=2")
    assert code == 2
    assert fakes["ingest"].calls.count("shard") < 40


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.console import displayed

    with displayed() as show:
        for done in (1, 2, 3, 3):
            show(Progress(stage="gvf", done=done, total=3, unit="videos", message="fast"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["gvf: 1/3 videos, fast", "gvf: 3/3 videos, fast"]


def test_progress_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.console import displayed

    monkeypatch.setenv("FORCE_COLOR", "1")
    with displayed() as show:
        show(Progress(stage="gvf", done=1, total=3, unit="videos"))
        time.sleep(0.5)  # bars are redrawn ten times a second
        logging.getLogger("tasks").info("gvf: begun")
        show(Progress(stage="gvf", done=3, total=3, unit="videos"))
    shown = capsys.readouterr().err
    assert "1/3 videos" in shown
    assert "gvf: begun" in shown


def test_a_bar_begins_anew_with_the_next_run_of_a_study() -> None:
    from rich.progress import Progress as RichProgress

    from flows.console import _Bars

    now = 100.0
    bars = RichProgress(get_time=lambda: now)
    show = _Bars(bars)
    for seconds, done in ((0, 0), (10, 15), (10, 30), (1000, 0), (10, 5), (10, 10)):
        now += seconds
        show(Progress(stage="gvf", done=done, total=30, unit="videos"))
    (task,) = bars.tasks
    assert task.time_remaining == 40  # 20 videos at one in two seconds

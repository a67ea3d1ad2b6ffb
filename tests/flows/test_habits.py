"""A person's habits: dry runs, quiet and JSON output, suggestions, completion, no colours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flows.options import config_keys
from tests.fakes import FakeStages
from tests.flows.running import Tsp
from tests.servers import REPOSITORY
from tsp_core.config import STAGE_NAMES
from tsp_core.stages.base import Progress


def test_a_dry_run_says_what_would_run_and_runs_nothing(
    tsp: Tsp, fakes: FakeStages, config: str
) -> None:
    fakes["ingest"].shards = 4
    code, out, _ = tsp("run", config, "--dry-run", "--json")
    stages = {entry["stage"]: entry for entry in json.loads(out)["stages"]}
    assert code == 0
    assert list(stages) == list(STAGE_NAMES)
    assert stages["ingest"] == {
        "stage": "ingest",
        "state": "missing",
        "reason": "never run",
        "artifact": None,
        "num_videos": 4,
        "num_videos_to_do": 4,
    }
    assert stages["gvf"]["reason"] == "follows ingest, index"
    assert {call for calls in fakes.calls().values() for call in calls} == {"plan"}


def test_a_dry_run_finds_the_mistakes_that_a_run_begins_with(
    tsp: Tsp, fakes: FakeStages, config: str
) -> None:
    fakes["annotate"].subsets = ("training", "validation")
    code, _, err = tsp("run", config, "--dry-run", "--set", "evaluate.subset=validatoin")
    assert code == 2
    assert "evaluate.subset: 'validatoin': the annotations have no such subset" in err
    assert "did you mean 'validation'?" in err


def test_a_dry_run_after_a_change(tsp: Tsp, fakes: FakeStages, config: str) -> None:
    for stage in STAGE_NAMES:
        assert tsp(stage, config, "--quiet")[0] == 0
    code, out, _ = tsp("run", config, "--dry-run", "--set", "export.stride=8")
    verbs = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert code == 0
    expected = dict.fromkeys(STAGE_NAMES, "reuse") | {"export": "run", "evaluate": "run"}
    assert verbs == expected
    assert "export.stride 16 → 8" in out
    code, out, _ = tsp("export", config, "--dry-run", "--set", "export.stride=8")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["export"]
    code, out, _ = tsp("run", config, "--dry-run", "--through", "index")
    assert "gvf" not in out


def test_json_of_a_stage_and_of_the_status(tsp: Tsp, fakes: FakeStages, config: str) -> None:
    _, out, _ = tsp("ingest", config, "--json")
    first = json.loads(out)["stages"]["ingest"]
    assert first["state"] == "made"
    assert first["summary"] == {"num_items": 0}
    _, out, _ = tsp("ingest", config, "--json")
    assert json.loads(out)["stages"]["ingest"] == {**first, "state": "reused"}
    _, out, _ = tsp("status", config, "--json")
    document = json.loads(out)
    assert document["stages"][0]["artifact"] == first["artifact"]
    assert document["quarantined"] == []
    assert document["num_annotation_problems"] == 0


def test_quiet_prints_results_only(tsp: Tsp, fakes: FakeStages, config: str) -> None:
    fakes["ingest"].shards = 2
    code, out, err = tsp("ingest", config, "--quiet")
    assert (code, err) == (0, "")
    for stage in STAGE_NAMES[1:]:
        _, out, err = tsp(stage, config, "-q")
        assert err == ""
    assert "report.html" in out


def test_a_line_of_progress_says_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from flows.console import _Lines

    now = 100.0
    show = _Lines(Console(stderr=True), clock=lambda: now)
    for seconds, done in ((0, 0), (30, 10), (60, 30), (60, 30), (0, 0), (90, 10), (10, 30)):
        now += seconds  # the second round is the same stage in a study's next run
        show(Progress(stage="gvf", done=done, total=30, unit="videos"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "gvf: 0/30 videos",
        "gvf: 10/30 videos, 0:01:00 left",
        "gvf: 30/30 videos",
        "gvf: 0/30 videos",
        "gvf: 10/30 videos, 0:03:00 left",
        "gvf: 30/30 videos",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu", "CONFIG"), "Did you mean 'run'?"),
        (("run", "CONFIG", "--thruogh", "gvf"), "--through"),
        (("run", "CONFIG", "--set", "expotr.stride=1"), "did you mean 'export'?"),
        (("status", "FOLDER/confgi.yaml"), "config.yaml'?"),
    ],
)
def test_suggestions(tsp: Tsp, config: str, arguments: tuple[str, ...], message: str) -> None:
    folder = str(Path(config).parent)
    given = [item.replace("CONFIG", config).replace("FOLDER", folder) for item in arguments]
    code, _, err = tsp(*given)
    assert code == 2
    assert message in err


def completed(words: str, folder: Path) -> list[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()"]
    asked = {"_TSP_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment = {**os.environ, **asked, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tsp stat", ["status"]),
        ("tsp run c", ["config.yaml", "configs/"]),
        ("tsp run config.yaml --set export.str", ["export.stride="]),
        ("tsp run config.yaml --through pre", ["pretrain"]),
        (
            "tsp features --checkpoint r2plus1d_34-tsp_on_th",
            ["r2plus1d_34-tsp_on_thumos14"],
        ),
    ],
)
def test_completion(tmp_path: Path, words: str, expected: list[str]) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "cat.mp4").touch()
    (tmp_path / "configs").mkdir()
    assert completed(words, tmp_path) == expected


def test_every_key_of_the_configuration_is_offered() -> None:
    keys = dict(config_keys())
    assert {"root", "clip.length", "runtime.device"} <= keys.keys()
    assert all(keys.values()), [key for key, text in keys.items() if not text]


def test_no_colours_where_none_are_wanted(
    tsp: Tsp, fakes: FakeStages, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[3" in tsp("status", config)[1]  # a foreground colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in tsp("status", config)[1]


def test_init_writes_a_configuration_that_plans(
    tsp: Tsp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kitchen" / "videos").mkdir(parents=True)
    (tmp_path / "kitchen" / "videos" / "a.mp4").write_bytes(b"x")
    (tmp_path / "kitchen" / "a.csv").write_text("video,label,start,end,subset\na,cut,0,1,train\n")
    code, _, err = tsp("init", "kitchen/videos", "--out", "kitchen/tsp.yaml")
    assert code == 0, err
    assert "1 videos; 1 annotated (csv), 1 of them have a file; 1 classes" in err
    code, out, err = tsp("run", "kitchen/tsp.yaml", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["stages"][0]["num_videos_to_do"] == 1
    code, _, err = tsp("init", "kitchen/videos", "--out", "kitchen/tsp.yaml")
    assert code == 2
    assert "exists already; give another name, or --force" in err
    assert tsp("init", "kitchen/videos", "--out", "kitchen/tsp.yaml", "--force")[0] == 0


def test_init_tells_what_a_run_would_stop_by(
    tsp: Tsp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kitchen" / "videos").mkdir(parents=True)
    (tmp_path / "kitchen" / "videos" / "a.mp4").write_bytes(b"x")
    (tmp_path / "kitchen" / "a.csv").write_text("video,label,start,end\na,cut,2,1\n")
    code, _, err = tsp("init", "kitchen/videos/**/*.mp4", "--root", "out")
    assert code == 0, err
    assert "The annotations name no subset, which training needs" in err
    assert "'a.csv': video 'a': [2.0, 1.0]: line 2: the end lies before the start" in err
    assert "name: kitchen\n" in (tmp_path / "tsp.yaml").read_text()
    (tmp_path / "kitchen" / "b.csv").write_text("video,label,start,end\na,cut,1,2\n")
    code, _, err = tsp("init", "kitchen/videos", "--force")
    assert code == 2
    option = "--annotations training=FILE --annotations validation=FILE"
    assert option in " ".join(err.split())
    (tmp_path / "kitchen" / "a.csv").write_text("video,label,start,end\nb,cut,1,2\n")
    given = option.replace("FILE", "kitchen/a.csv", 1).replace("FILE", "kitchen/b.csv").split()
    assert tsp("init", "kitchen/videos", "--force", *given)[0] == 0

"""Results on stdout: URIs come out whole in a file, and can be read whole in a narrow terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import console
from tests.fakes import FakeStages
from tests.flows.running import Tsp
from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.prune import Garbage
from tsp_core.stages.base import StageReport
from tsp_core.status import StageStatus
from tsp_core.study.state import RunStatus

URI = "s3://a-bucket-of-some-length/" + "/".join(f"folder-{number}" for number in range(12))
REF = ArtifactRef(stage="ingest", uri=URI, fingerprint="f" * 64, digest="d" * 64)
STAGES = [
    StageStatus(stage="ingest", state="done", reason="", artifact=REF),
    StageStatus(stage="annotate", state="missing", reason=f"{URI} is not there", artifact=None),
]
Show = Callable[[], None]
SHOWN: list[Show] = [
    lambda: console.print_status(STAGES, [], 0),
    lambda: console.print_plan(STAGES),
    lambda: console.print_study_status(
        [RunStatus(label="gvf seed 0", state="done", reason="", artifact=REF)]
    ),
    lambda: console.print_garbage(
        [Garbage(kind="shard", uri=URI, size_bytes=1_000_000, modified_at=0.0)]
    ),
]
IDS = ["status", "plan", "study", "garbage"]


@pytest.mark.parametrize("show", SHOWN, ids=IDS)
def test_no_uri_is_cut_or_broken_where_there_is_no_terminal(
    show: Show, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show()
    lines = capsys.readouterr().out.splitlines()
    assert any(URI in line for line in lines)
    assert all(len(line) < 400 for line in lines)


@pytest.mark.parametrize("show", SHOWN, ids=IDS)
def test_in_a_narrow_terminal_a_uri_goes_on_below(
    show: Show, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert all(len(line) <= 60 for line in shown.splitlines())
    start = next(line for line in shown.splitlines() if "s3://" in line).index("s3://")
    column = "".join(line[start:].split(" ")[0] for line in shown.splitlines()[1:])
    assert URI in column


def test_the_table_of_a_study_comes_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = [f"metric_{number}_with_a_long_name" for number in range(9)]
    rows = [names, ["---"] * 9, [f"{'v' * 30}{number}" for number in range(9)]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows).encode()
    recipe = Recipe(stage="study", version=1, config={}, inputs={})
    made = artifacts.publish(str(tmp_path), recipe, {"table.md": table, "report.html": b""})
    console.print_study(made)
    header, values, _ = capsys.readouterr().out.splitlines()
    assert header.split() == names
    assert values.split() == rows[2]


def test_the_command_line_shows_whole_uris(
    tsp: Tsp, fakes: FakeStages, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    deep = f"root={Path(config).parent}/{'a-long-name-of-a-folder/' * 5}out"
    assert tsp("ingest", config, "--set", deep)[0] == 0
    for command in (("status", config), ("run", config, "--dry-run", "--through", "ingest")):
        code, out, _ = tsp(*command, "--set", deep)
        assert code == 0
        assert f"{deep.removeprefix('root=')}/ingest/" in out


@pytest.mark.parametrize("text", [r"\[/x]", "[/x]", "[red]x[/red]", r"a\[b]", "[1] x", "x\\"])
def test_text_that_looks_like_markup_is_shown_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"/data/{text}"
    console.print_garbage([Garbage(kind="shard", uri=uri, size_bytes=1, modified_at=0.0)])
    assert uri in capsys.readouterr().out


def test_a_run_ends_with_figures_that_say_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = ArtifactRef(uri="/out/evaluate/f", stage="evaluate", fingerprint="f", digest="d")
    summary = {
        "subset": "validation",
        "protocol": "thumos14",
        "accuracy_action": 0.925,
        "average_map_detector": 0.5,
        "average_map_probes": None,
        "clips": 40,
        "notes": [],
    }
    report = StageReport(stage="evaluate", artifact=artifact, reused=False, summary=summary)
    console.print_results({"evaluate": report})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["report", "/out/evaluate/f/report.html"],
        ["validation", "action", "accuracy", "92.5%"],
        ["validation", "mAP,", "detector", "(thumos14)", "50.0%"],
    ]

"""Reports with pictures for the Prefect UI; what the server refuses costs no run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks import artifacts as shown
from tasks.artifacts import artifact_key, show_report, show_stage
from tsp_core import artifacts
from tsp_core.artifacts import Recipe
from tsp_core.stages.base import StageReport

PNG = b"\x89PNG not really"


class Ui:
    """Takes what would go to Prefect."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def __call__(self, content: Any, *, key: str, **options: Any) -> None:
        self.found[key] = (content, options)


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> Ui:
    ui = Ui()
    for name in ("create_markdown_artifact", "create_table_artifact", "create_link_artifact"):
        monkeypatch.setattr(shown, name, ui)
    return ui


def report(root: Path, stage: str, **files: bytes) -> StageReport:
    recipe = Recipe(stage=stage, version=1, config={}, inputs={})
    named = {name.replace("__", "."): content for name, content in files.items()}
    artifact = artifacts.publish(str(root / "a root"), recipe, named)
    return StageReport(stage=stage, artifact=artifact, summary={"videos": 3})


@pytest.mark.parametrize(
    ("name", "key"),
    [("Nagoya_FIR.v2", "nagoya-fir-v2"), ("a", "a"), ("__", "tsp"), ("-x-", "x")],
)
def test_keys_are_what_prefect_accepts(name: str, key: str) -> None:
    assert artifact_key(name) == key


def test_the_report_has_its_pictures_in_it(ui: Ui, tmp_path: Path) -> None:
    text = b"# Report\n\n![Confusion (rows: true)](confusion.png)\n\n![Gone](absent.png)\n"
    evaluated = report(
        tmp_path, "evaluate", report__md=text, confusion__png=PNG, report__html=b"<p>"
    )
    reports = {"export": report(tmp_path, "export"), "evaluate": evaluated}
    show_report(reports, key_prefix="demo")
    markdown, _ = ui.found["demo-report"]
    picture = base64.b64encode(PNG).decode()
    assert f"![Confusion (rows: true)](data:image/png;base64,{picture})" in markdown
    assert "*Gone: see absent.png*" in markdown
    assert f"| export | `{reports['export'].artifact.uri}` |" in markdown
    link, _ = ui.found["demo-report-link"]
    assert link.startswith("file:///")
    assert link.endswith("a%20root/evaluate/" + evaluated.artifact.fingerprint + "/report.html")


def test_large_pictures_are_left_out(
    ui: Ui, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "MAX_PICTURE_BYTES", 3)
    text = b"![Curves](curves.png)"
    evaluated = report(tmp_path, "evaluate", report__md=text, curves__png=PNG)
    show_report({"evaluate": evaluated}, key_prefix="demo")
    assert "data:" not in ui.found["demo-report"][0]


def test_without_evaluation_the_curves_are_shown(ui: Ui, tmp_path: Path) -> None:
    trained = report(tmp_path, "pretrain", curves__png=PNG)
    show_report({"pretrain": trained}, key_prefix="demo")
    assert "![Loss and accuracy by epoch](data:image/png;base64," in ui.found["demo-report"][0]


def test_a_stage_shows_its_figures_and_whether_it_was_reused(ui: Ui, tmp_path: Path) -> None:
    done = report(tmp_path, "index")
    show_stage(done, key_prefix="demo")
    assert ui.found["demo-index-summary"][1]["description"] == "done: videos 3"
    show_stage(done.model_copy(update={"reused": True}), key_prefix="demo")
    text, options = ui.found["demo-index-summary"]
    assert options["description"] == "up to date, reused: videos 3"
    assert done.artifact.uri in text


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), OSError("gone")], ids=repr)
def test_what_the_server_refuses_costs_no_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(shown, "create_markdown_artifact", refuse)
    show_stage(report(tmp_path, "index"), key_prefix="demo")
    assert "show_stage: this is not shown in the UI: " in caplog.text

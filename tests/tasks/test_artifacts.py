"""Reports with pictures for the Prefect UI; what the server refuses costs no run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tasks import artifacts as shown
from tasks.artifacts import show_report, show_stage
from tsp_core import artifacts, schemas
from tsp_core.artifacts import Recipe
from tsp_core.stages.base import StageReport

PNG = b"\x89PNG not really"


class Ui:
    """Takes what would go to Prefect."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.links: list[str] = []

    def __call__(self, content: Any, *, key: str, **options: Any) -> UUID:
        self.found[key] = (content, options)
        return uuid4()

    def link(self, text: str, address: str) -> None:
        assert address.startswith("/artifacts/artifact/")
        self.links.append(text)


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


def test_the_report_has_its_pictures_in_it(ui: Ui, tmp_path: Path) -> None:
    text = b"# Report\n\n![Confusion (rows: true)](confusion.png)\n\n![Gone](absent.png)\n"
    evaluated = report(
        tmp_path, "evaluate", report__md=text, confusion__png=PNG, report__html=b"<p>"
    )
    reports = {"export": report(tmp_path, "export"), "evaluate": evaluated}
    show_report(reports, key_prefix="demo", on_shown=ui.link)
    markdown, _ = ui.found["demo-report"]
    picture = base64.b64encode(PNG).decode()
    assert f"![Confusion (rows: true)](data:image/png;base64,{picture})" in markdown
    assert "*Gone: see absent.png*" in markdown
    assert ui.links == ["report", "where the report is", "where the features are"]
    link, _ = ui.found["demo-report-link"]
    assert link.startswith("file:///")
    assert link.endswith("a%20root/evaluate/" + evaluated.artifact.fingerprint + "/report.html")


def test_large_pictures_are_left_out(
    ui: Ui, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "MAX_PICTURE_BYTES", 3)
    text = b"![Curves](curves.png)"
    evaluated = report(tmp_path, "evaluate", report__md=text, curves__png=PNG)
    show_report({"evaluate": evaluated}, key_prefix="demo", on_shown=ui.link)
    assert "data:" not in ui.found["demo-report"][0]


def test_without_evaluation_the_curves_are_shown(ui: Ui, tmp_path: Path) -> None:
    trained = report(tmp_path, "pretrain", curves__png=PNG)
    show_report({"pretrain": trained}, key_prefix="demo", on_shown=ui.link)
    assert "![Loss and accuracy by epoch](data:image/png;base64," in ui.found["demo-report"][0]


def test_a_stage_shows_its_tables(ui: Ui, tmp_path: Path) -> None:
    rows = [{"epoch": 0, "iteration": 7, "phase": "train", "name": "loss", "value": 2.0}]
    path = str(tmp_path / "metrics.parquet")
    schemas.write_table(path, schemas.table_from_rows(rows, schemas.METRICS), schemas.METRICS)
    done = report(tmp_path, "pretrain", metrics__parquet=Path(path).read_bytes())
    show_stage(done, key_prefix="demo", on_shown=ui.link)
    assert ui.found["demo-pretrain-epochs"][0] == [{"epoch": 0, "train loss": 2.0}]
    assert ui.links == ["epochs"]
    show_stage(report(tmp_path, "index"), key_prefix="demo", on_shown=ui.link)
    assert ui.links == ["epochs"]


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), OSError("gone")], ids=repr)
def test_what_the_server_refuses_costs_no_run(
    ui: Ui,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(shown, "create_link_artifact", refuse)
    exported = report(tmp_path, "export")
    show_report({"export": exported}, key_prefix="demo", on_shown=ui.link)
    assert "show_report: this is not shown in the UI: " in caplog.text
    assert ui.links == []

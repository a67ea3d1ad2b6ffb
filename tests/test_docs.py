"""The documents: the site builds without broken links, and what they tell people to type exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from flows import documents
from flows.cli import app
from tests.pages import explained
from tests.servers import REPOSITORY
from tsp_core import status
from tsp_core.artifacts import ArtifactRef
from tsp_core.stages.base import StageReport
from tsp_core.study.state import RunStatus

PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
_FENCED = re.compile(r"^```(?:\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def commands(page: Path) -> Iterator[list[str]]:
    """Every `tsp ...` line of the page's code blocks, as words."""
    for block in _FENCED.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            words = line.split(" # ")[0].strip().removeprefix(".venv/bin/")
            if re.match(r"tsp [a-z-]", words):
                yield shlex.split(words)


def command_of(
    group: typer.core.TyperGroup, words: list[str]
) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command that words begin with, which may be one of a group (`automations apply`)."""
    assert words[0] in group.commands, words
    found = group.commands[words[0]]
    if isinstance(found, typer.core.TyperGroup):
        return command_of(found, words[1:])
    assert isinstance(found, typer.core.TyperCommand)
    return found, words[1:]


def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    extending = (tmp_path / "site" / "extending.html").read_text(encoding="utf-8")
    assert "register_encoder" in extending, "the examples are not shown"
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://', index)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_to_files_hold(page: Path) -> None:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    broken = [target for target in targets if not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_can_be_typed(page: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for words in commands(page):
        command, arguments = command_of(group, words[1:])
        command.make_context("tsp", arguments)  # refuses what it does not know


def test_the_check_of_commands_finds_some() -> None:
    found = [words for page in PAGES for words in commands(page)]
    assert {"run", "status", "features", "init"} <= {words[1] for words in found}


def test_the_tests_that_prove_the_promises_exist() -> None:
    page = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::|`)", page))
    assert named
    assert [name for name in sorted(named) if not (REPOSITORY / "tests" / name).is_file()] == []


def test_the_example_of_the_detector_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(compile(example, "evaluation.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.9


def test_every_field_that_json_shows_is_explained() -> None:
    artifact = ArtifactRef(uri="/out/export/f", stage="export", fingerprint="f", digest="d")
    stage = status.StageStatus(stage="export", state="done", reason="", artifact=artifact)
    video = status.QuarantinedVideo(video="v", stage="ingest", code="empty", reason="")
    report = StageReport(stage="export", artifact=artifact, reused=False, summary={})
    run = RunStatus(label="tsp, seed 0", state="done", reason="", artifact=artifact)
    shown = [
        documents.status_document([stage], [video], 0),
        documents.reports_document({"export": report}),
        documents.runs_document([run]),
    ]
    assert set(_keys(shown)) - {"export"} <= explained("schemas.md", "What `--json` prints")


def _keys(document: object) -> Iterator[str]:
    if isinstance(document, list):
        for item in document:
            yield from _keys(item)
    elif isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from _keys(value)

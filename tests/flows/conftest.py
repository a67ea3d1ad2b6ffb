"""Fake stages and a command line for them; a dataset for the real pipeline, half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tests.flows.running import Tsp
from tsp_core.demo import make_demo


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    return FakeStages().install(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text("name: cooking\nroot: store\n")
    return str(path)


@pytest.fixture
def tsp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tsp:
    monkeypatch.delenv("TSP_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Tsp(monkeypatch, capsys)


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a demo of three short videos, trained for one epoch."""
    config = make_demo(tmp_path_factory.mktemp("demo"), minutes=0.3)
    lines = [_TINY.get(line.split(":")[0].strip(), line) for line in config.read_text().split("\n")]
    config.write_text("\n".join(lines))
    return config


_TINY = {
    "epochs": "  epochs: 1",
    "milestones": "  milestones: []",
    "subset": "  subset: validation\n  detector_epochs: 2",
}

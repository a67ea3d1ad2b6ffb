"""A dataset that the real pipeline gets through in half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsp_core.demo import make_demo


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a demo of three short videos, trained for one epoch."""
    config = make_demo(tmp_path_factory.mktemp("demo"), minutes=0.3)
    lines = [_TINY.get(line.split(":")[0].strip(), line) for line in config.read_text().split("\n")]
    config.write_text("\n".join(lines))
    return config


_TINY = {"epochs": "  epochs: 1", "milestones": "  milestones: []"}

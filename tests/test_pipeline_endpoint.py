"""The stages of a configuration run on its S3 endpoint, whichever configuration was read last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import pipeline, storage
from tsp_core.config import Config
from tsp_core.config.io import load_config


def start(config: Config) -> object:
    return pipeline.run_stage(config, "ingest", {})


@pytest.mark.parametrize("act", [pipeline.run_all, pipeline.published, start])
def test_two_configurations_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Config], object]
) -> None:
    fakes = FakeStages().install(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://own")
    seen: set[str | None] = set()
    plan = fakes["ingest"].plan
    monkeypatch.setattr(
        fakes["ingest"], "plan", lambda *given: seen.add(storage.endpoint()) or plan(*given)
    )
    with storage.endpoint_restored():
        configs = []
        for name, runtime in (("a", "{endpoint_url: 'http://one'}"), ("b", "{}")):
            path = tmp_path / f"{name}.yaml"
            path.write_text(f"name: {name}\nroot: {name}\nruntime: {runtime}\n")
            configs.append(load_config(str(path)))
        for config, expected in zip(configs * 2, ["http://one", "http://own"] * 2, strict=True):
            seen.clear()
            act(config)
            assert seen == {expected}

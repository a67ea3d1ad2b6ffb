"""The example configurations load, and say where their data is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tsp_core.config.io import load_config

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads(path: Path) -> None:
    config = load_config(str(path))
    assert config.ingest.videos
    assert config.annotate.annotations
    assert Path(config.root_uri).name.endswith(("-run", "store"))


def test_the_environment_says_where_the_data_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAGOYA_FIR", str(tmp_path / "fir"))
    monkeypatch.setenv("NAGOYA_FIR_ROOT", "s3://bucket/fir")
    config = load_config(str(REPOSITORY / "examples" / "nagoya_fir.yaml"))
    assert config.ingest.videos == str(tmp_path / "fir" / "videos")
    assert config.annotate.annotations == str(tmp_path / "fir" / "annotations.json")
    assert config.root == "s3://bucket/fir"


@pytest.mark.shared
def test_the_data_of_the_examples_is_where_they_say(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAGOYA_FIR", str(shared / "data" / "nagoya_fir"))
    config = load_config(str(REPOSITORY / "examples" / "nagoya_fir.yaml"))
    assert len(list(Path(str(config.ingest.videos)).glob("*.mp4"))) == 300
    monkeypatch.setenv("CLIPS", str(shared / "data" / "clips"))
    annotations = shared / "data" / "annotations" / "activitynet_v1-3_validation.json"
    monkeypatch.setenv("ACTIVITYNET", str(annotations))
    config = load_config(str(REPOSITORY / "examples" / "activitynet_clips.yaml"))
    assert all(Path(uri).is_file() for uri in config.ingest.videos or ())
    assert Path(str(config.annotate.annotations)).is_file()

"""Pruning by the videos that artifacts of ingest list, in the store of the configuration."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config
from tsp_core.config.io import load_config
from tsp_core.errors import ArtifactError
from tsp_core.prune import find_garbage
from tsp_core.runs import RunRecord, StageRecord
from tsp_core.storage import sealed
from tsp_core.video.files import video_cache

RECIPE = Recipe(stage="ingest", version=1, config={"proxies": "settings"}, inputs={})


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeStages().install(monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()


def config_of(tmp_path: Path, name: str = "cooking", more: str = "") -> Config:
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\nroot: store\n{more}")
    return load_config(str(path))


def published(root: str, *hashes: str) -> ArtifactRef:
    """What ingest publishes of videos with these hashes, and of one that could not be read."""
    rows = [{"video": item, "status": "ok", "content_hash": item} for item in hashes]
    rows.append({"video": "broken", "status": "quarantined", "content_hash": None})
    table = schemas.table_from_rows(rows, schemas.VIDEOS).cast(schemas.VIDEOS.with_metadata())
    return artifacts.publish(root, RECIPE, {"videos.parquet": sealed.table_bytes(table)})


def record(root: str, artifact: ArtifactRef) -> None:
    stages = {"ingest": StageRecord(artifact=artifact, recipe=RECIPE)}
    text = RunRecord(name="sport", stages=stages).model_dump_json()
    storage.write_bytes(f"{root}/runs/sport.json", text.encode())


def garbage(config: Config, tmp_path: Path, *names: str) -> set[str]:
    """Which of the old proxies and cached videos of these names are garbage."""
    root, cache = tmp_path / "store", video_cache(config.runtime.cache_dir)
    for name in names:
        storage.write_bytes(str(root / f"proxies/settings/{name}.arrow"), b"x")
        storage.write_bytes(str(cache / f"{name}.mp4"), b"x")
    then = time.time() - 31 * 24 * 3600
    for path in (*root.rglob("*"), *cache.rglob("*")):
        os.utime(path, (then, then))
    return {Path(item.uri).name for item in find_garbage(config)}


def test_videos_that_an_artifact_of_ingest_lists_stay(tmp_path: Path) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    record(root, published(root, "a", "b"))
    assert garbage(config, tmp_path, "a", "b", "c") == {"c.arrow", "c.mp4"}


def test_the_table_is_found_where_two_runs_published_at_once(tmp_path: Path) -> None:
    """The files of the second lie in a folder of their own inside the artifact."""
    config, root = config_of(tmp_path), str(tmp_path / "store")
    half = schemas.table_from_rows([{"content_hash": "c"}], schemas.VIDEOS)
    uri = f"{artifacts.artifact_uri(root, RECIPE)}/videos.parquet"
    storage.write_bytes(uri, sealed.table_bytes(half))
    artifact = published(root, "a", "b")
    assert artifact.file("videos.parquet") != uri
    record(root, artifact)
    assert garbage(config, tmp_path, "a", "b", "c") == {"c.arrow", "c.mp4"}


def test_nothing_is_garbage_where_the_table_cannot_be_read(tmp_path: Path) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    artifact = published(root, "a")
    record(root, artifact)
    storage.local_path(artifact.file("videos.parquet")).write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"videos\.parquet: not a readable Parquet file"):
        garbage(config, tmp_path, "a", "c")


def test_the_store_is_that_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://own")
    (tmp_path / "store").mkdir()
    with storage.endpoint_restored():
        one = config_of(tmp_path, "one", "runtime: {endpoint_url: 'http://one'}\n")
        plain = config_of(tmp_path)
        for config, expected in ((one, "http://one"), (plain, "http://own"), (one, "http://one")):
            find_garbage(config)
            assert storage.endpoint() == expected

"""Pruning: what nothing refers to goes, what anything refers to stays."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import artifacts, pipeline, prune, storage, underway
from tsp_core.artifacts import Recipe
from tsp_core.config import Config
from tsp_core.config.io import load_config
from tsp_core.errors import ArtifactError, ConfigError
from tsp_core.prune import find_garbage, remove
from tsp_core.runs import StageRecord, record_uri, update_record
from tsp_core.stages.base import Inputs, Plan
from tsp_core.video.files import proxy_cache, video_cache


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    return FakeStages().install(monkeypatch)


@pytest.fixture(autouse=True)
def _quiet_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own cache and temporary folders are none of the tests' business."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    # Fake stages publish no table of videos.
    monkeypatch.setattr(prune, "_content_hashes", lambda uri, marker: ["known"])


def config_of(tmp_path: Path, name: str = "cooking", *assignments: str) -> Config:
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\nroot: store\n")
    return load_config(str(path), assignments=assignments)


def run(config: Config) -> None:
    pipeline.run_all(config)


def interrupt(config: Config, plan: Plan, published: Inputs) -> None:
    """Begin to work and break off."""
    with contextlib.suppress(KeyboardInterrupt), underway.noted(config, plan, published):
        raise KeyboardInterrupt


def age(folder: Path, hours: float = 48.0) -> None:
    """Make everything below a folder older."""
    then = time.time() - hours * 3600
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def kinds(config: Config, root: Path, **options: float) -> dict[str, str]:
    return {
        item.uri.removeprefix(f"{root}/"): item.kind for item in find_garbage(config, **options)
    }


def test_after_a_run_there_is_nothing_to_prune(fakes: FakeStages, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run(config)
    age(tmp_path / "store")
    assert find_garbage(config) == []


def test_a_root_that_is_not_there_is_refused(fakes: FakeStages, tmp_path: Path) -> None:
    run(config_of(tmp_path))
    wrong = config_of(tmp_path, "cooking", f"root={tmp_path}/stroe")
    message = r"^root: '.*/stroe': is not there, .* \(did you mean '.*/store'\?\), or run the pipe"
    with pytest.raises(ConfigError, match=message):
        find_garbage(wrong)
    with pytest.raises(ConfigError, match="root: 'memory://none/at/all': is not there"):
        find_garbage(config_of(tmp_path, "cooking", "root=memory://none/at/all"))


def test_artifacts_of_earlier_configurations_go(fakes: FakeStages, tmp_path: Path) -> None:
    old, new = config_of(tmp_path), config_of(tmp_path, "cooking", "export.stride=8")
    run(old)
    before = pipeline.published(old)
    fakes["export"].content = "other features"
    run(new)
    expected = {f"{name}/{before[name].fingerprint}": "artifact" for name in ("export", "evaluate")}
    assert find_garbage(new) == []  # too new
    age(tmp_path / "store")
    assert kinds(new, tmp_path / "store") == expected
    assert kinds(old, tmp_path / "store") == {}  # it would reuse them
    assert remove(new, find_garbage(new)) == 2
    assert set(pipeline.published(new)) == set(before)
    assert not storage.exists(before["export"].uri)


def test_the_checkpoint_behind_features_stays_with_them(fakes: FakeStages, tmp_path: Path) -> None:
    """Pretraining alone was run again, so that the features are of the one before."""
    old, new = config_of(tmp_path), config_of(tmp_path, "cooking", "pretrain.epochs=9")
    run(old)
    before = pipeline.published(old)
    fakes["pretrain"].content = "another checkpoint"
    pipeline.run_all(new, through="pretrain")
    age(tmp_path / "store")
    assert kinds(new, tmp_path / "store") == {}
    run(new)
    age(tmp_path / "store")
    stages = ("pretrain", "export", "evaluate")
    expected = {f"{name}/{before[name].fingerprint}": "artifact" for name in stages}
    assert kinds(new, tmp_path / "store") == expected


def test_other_datasets_of_the_root_are_respected(fakes: FakeStages, tmp_path: Path) -> None:
    one, two = config_of(tmp_path), config_of(tmp_path, "sport", "export.stride=8")
    run(one)
    run(two)
    age(tmp_path / "store")
    assert find_garbage(one) == find_garbage(two) == []
    storage.delete(record_uri(two))
    assert set(kinds(one, tmp_path / "store").values()) == {"artifact"}
    storage.write_bytes(record_uri(two), b"{")
    with pytest.raises(ArtifactError, match="damaged record"):
        find_garbage(one)


def test_checkpoints_that_configurations_name_stay(fakes: FakeStages, tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    (tmp_path / "store").mkdir()
    named = artifacts.publish(
        root, Recipe(stage="pretrain", version=1, config={"n": 1}, inputs={}), {"best.pth": b"x"}
    )
    name = f"pretrain/{named.fingerprint}"
    pinned = f"export.checkpoint={named.file('best.pth')}"
    one, two = config_of(tmp_path), config_of(tmp_path, "sport", pinned)
    run(one)
    age(tmp_path / "store")
    assert name in kinds(one, tmp_path / "store")
    assert name not in kinds(two, tmp_path / "store")
    run(two)  # whose record says what it uses
    age(tmp_path / "store")
    assert name not in kinds(one, tmp_path / "store")


def test_what_vanishes_while_it_is_looked_at_is_passed_over(
    fakes: FakeStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path)
    (tmp_path / "store").mkdir()
    gone = tmp_path / "tmp" / "tsp-shard-gone"
    (tmp_path / "tmp" / "tsp-join-left").mkdir()
    (tmp_path / "cache" / "tsp" / "videos").mkdir(parents=True)
    glob = Path.glob

    def with_gone(self: Path, pattern: str) -> list[Path]:
        return [*glob(self, pattern), *([gone] if pattern == "tsp-shard-*" else [])]

    age(tmp_path / "tmp")
    monkeypatch.setattr(Path, "glob", with_gone)
    found = find_garbage(config)
    assert [item.uri for item in found] == [str(tmp_path / "tmp" / "tsp-join-left")]


def test_what_a_run_under_way_uses_stays(fakes: FakeStages, tmp_path: Path) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    run(config)
    other = Recipe(stage="gvf", version=1, config={"n": 1}, inputs={})
    source = artifacts.publish(root, Recipe(stage="ingest", version=1, config={}, inputs={}), {})
    shard = artifacts.shard_uri(root, "gvf", "work", "key")
    storage.write_bytes(shard, b"x")
    storage.write_bytes(f"{artifacts.artifact_uri(root, other)}/half", b"x")
    storage.write_bytes(f"{root}/training/{other.fingerprint}/state.pt", b"x")
    garbage = {
        f"ingest/{source.fingerprint}": "artifact",
        f"gvf/{other.fingerprint}": "unfinished artifact",
        "shards/gvf/work": "shards",
        f"training/{other.fingerprint}/state.pt": "file",
    }
    age(tmp_path / "store")
    assert kinds(config, tmp_path / "store") == garbage
    plan = Plan(recipe=other, done=(shard,))
    interrupt(config, plan, {"ingest": source})
    assert kinds(config, tmp_path / "store") == {}  # it is going to be continued
    with underway.noted(config, plan, {"ingest": source}):
        pass
    assert kinds(config, tmp_path / "store") == garbage
    assert storage.list_objects(f"{root}/underway") == []


def test_notes_of_runs_that_nobody_continued_lose_their_force(
    fakes: FakeStages, tmp_path: Path
) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    recipe = Recipe(stage="gvf", version=1, config={}, inputs={})
    storage.write_bytes(f"{artifacts.artifact_uri(root, recipe)}/half", b"x")
    interrupt(config, Plan(recipe=recipe), {})
    age(tmp_path / "store", hours=29 * 24)
    assert find_garbage(config) == []
    age(tmp_path / "store", hours=31 * 24)
    found = kinds(config, tmp_path / "store")
    assert found == {
        f"gvf/{recipe.fingerprint}": "unfinished artifact",
        f"underway/gvf-{recipe.fingerprint}.json": "file",
    }
    storage.write_bytes(f"{root}/underway/x.json", b'{"note_version": 7}')
    with pytest.raises(ArtifactError, match="note version 7 is unknown to this release"):
        find_garbage(config)


def test_shards_stay_with_the_artifacts_that_were_merged_from_them(
    fakes: FakeStages, tmp_path: Path
) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    run(config)
    recipe = Recipe(stage="gvf", version=1, config={"n": 1}, inputs={})
    ref = artifacts.publish(root, recipe, {}, shards="shards/gvf/used")
    update_record(config, {"gvf": ref})
    for work in ("used", "unused"):
        storage.write_bytes(f"{root}/shards/gvf/{work}/x.parquet", b"x")
    age(tmp_path / "store")
    assert kinds(config, tmp_path / "store") == {"shards/gvf/unused": "shards"}


def test_finished_checkpoints_and_what_killed_runs_left_go(
    fakes: FakeStages, tmp_path: Path
) -> None:
    config, root = config_of(tmp_path), str(tmp_path / "store")
    run(config)
    done = pipeline.published(config)["pretrain"].fingerprint
    aside = f".{'0' * 32}.tmp"
    for name in (
        f"training/{done}/state.pt",
        f"training/{done}/tensorboard/events",
        "training/history/key/000000-x.json",
        f"export/{aside}",
        "notes-of-mine.txt",
    ):
        storage.write_bytes(f"{root}/{name}", b"x")
    cache = video_cache(config.runtime.cache_dir)
    for name in ("known.mp4", "unknown.mp4", "incoming-1.mp4"):
        storage.write_bytes(str(cache / name), b"x")
    (tmp_path / "tmp" / "tsp-shard-1").mkdir()
    (tmp_path / "tmp" / "tsp-shard-1" / "x").write_bytes(b"x")
    (tmp_path / "tmp" / "mine").mkdir()
    for folder in (tmp_path / "store", tmp_path / "tmp"):
        age(folder)
    age(cache, hours=31 * 24)
    expected = {
        f"{root}/training/{done}/state.pt",
        f"{root}/export/{aside}",
        str(cache / "unknown.mp4"),
        str(cache / "incoming-1.mp4"),
        str(tmp_path / "tmp" / "tsp-shard-1"),
    }
    found = find_garbage(config)
    assert {item.uri for item in found} == expected
    assert remove(config, found) == len(expected)
    assert not any(Path(uri).exists() for uri in expected)
    assert find_garbage(config) == []
    assert Path(f"{root}/notes-of-mine.txt").exists()


def test_what_other_runs_of_the_machine_may_be_writing_stays(
    fakes: FakeStages, tmp_path: Path
) -> None:
    """Temporary folders and downloads name no root and no run."""
    config = config_of(tmp_path)
    run(config)
    (tmp_path / "tmp" / "tsp-pretrain-1").mkdir()
    incoming = video_cache(config.runtime.cache_dir) / "incoming-1.mp4"
    storage.write_bytes(str(incoming), b"x")
    assert find_garbage(config, keep_hours=0) == []
    age(tmp_path / "tmp", hours=25)
    age(incoming.parent, hours=25)
    left = {item.uri for item in find_garbage(config, keep_hours=0)}
    assert left == {str(tmp_path / "tmp" / "tsp-pretrain-1"), str(incoming)}


def test_what_was_taken_up_again_in_the_meantime_stays(fakes: FakeStages, tmp_path: Path) -> None:
    old, new = config_of(tmp_path), config_of(tmp_path, "cooking", "evaluate.subset=testing")
    run(old)
    run(new)
    age(tmp_path / "store")
    found = find_garbage(new)
    assert [item.kind for item in found] == ["artifact"]
    update_record(old, pipeline.published(old))  # a run of the old configuration reused it
    assert remove(new, found) == 0
    assert storage.exists(found[0].uri)


def test_proxies_go_with_their_settings_and_their_videos(fakes: FakeStages, tmp_path: Path) -> None:
    config, root = config_of(tmp_path), tmp_path / "store"
    run(config)
    names = ("used/known", "used/gone", "unused/known", "underway/new")
    for name in names:
        storage.write_bytes(str(root / "proxies" / f"{name}.arrow"), b"proxy")
    settings = {"proxies": "used"}
    recipe = Recipe(stage="ingest", version=1, config=settings, inputs={})
    ref = artifacts.publish(str(root), recipe, {})
    record = update_record(config, {})
    entry = StageRecord(artifact=ref, recipe=recipe)
    stages = {**record.stages, "ingest": entry}
    record = record.model_copy(update={"name": "other", "stages": stages})
    storage.write_bytes(str(root / "runs" / "other.json"), record.model_dump_json().encode())
    following = Recipe(stage="ingest", version=1, config={"proxies": "underway"}, inputs={})
    interrupt(config, Plan(recipe=following), {})
    age(root)
    expected = {"proxies/used/gone.arrow": "file", "proxies/unused/known.arrow": "file"}
    assert kinds(config, root) == expected
    assert remove(config, find_garbage(config)) == 2
    assert storage.exists(str(root / "proxies" / "used" / "known.arrow"))


def test_copies_of_remote_proxies_go_when_nobody_used_them_for_long(
    fakes: FakeStages, tmp_path: Path
) -> None:
    config = config_of(tmp_path)
    run(config)
    folder = proxy_cache(config.runtime.cache_dir) / "settings"
    for name in ("known", "unknown"):
        storage.write_bytes(str(folder / f"{name}.arrow"), b"proxy")
    age(folder, hours=31 * 24)
    assert [Path(item.uri).name for item in find_garbage(config)] == ["unknown.arrow"]

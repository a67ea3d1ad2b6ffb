"""Reruns do what is new or changed and nothing else, on real stages and real videos.

That no frame is decoded is seen by damage: after a run the videos' bytes are overwritten, with
sizes and times as they were, so that whoever opened one would fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chaos.dataset import NUM_VIDEOS, make_dataset, write_annotations, write_videos
from tests.chaos.inspection import look, published_files
from tsp_core import pipeline, storage
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.config.io import load_config
from tsp_core.errors import AnnotationError
from tsp_core.schemas import read_table
from tsp_core.stages.base import StageReport
from tsp_core.status import status

USED = tuple(stage for stage in STAGE_NAMES if stage != "pretrain")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a dataset that is exported with given weights, without training."""
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def place(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that a test may change; the configuration's folder."""
    shutil.copytree(dataset.parent / "videos", tmp_path / "videos")
    shutil.copy(dataset.parent / "annotations.csv", tmp_path)
    text = dataset.read_text().replace(str(dataset.parent), str(tmp_path))
    (tmp_path / "config.yaml").write_text(text)
    return tmp_path


def config_of(place: Path, *assignments: str) -> Config:
    changes = [f"root={place / 'root'}", "export.checkpoint=random:1", *assignments]
    return load_config(str(place / "config.yaml"), assignments=changes)


def run(config: Config, through: str = "evaluate") -> dict[str, StageReport]:
    return pipeline.run_all(config, through=through)


def spoil(place: Path) -> None:
    """Overwrite all videos, leaving what a listing shows of them."""
    for path in (place / "videos").iterdir():
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def states(config: Config) -> dict[str, tuple[str, str]]:
    return {item.stage: (item.state, item.reason) for item in status(config) if item.stage in USED}


def stale(config: Config) -> set[str]:
    return {stage for stage, (state, _) in states(config).items() if state != "done"}


@pytest.fixture
def forward_passes() -> Iterator[list[str]]:
    """The kinds of network that were run forward, one entry per call."""
    calls: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: calls.append(type(module).__name__)
    )
    yield calls
    hook.remove()


def videos_in_new_shards(place: Path, act: Callable[[], Any]) -> dict[str, set[str]]:
    """Do something; return by stage the videos of the shards that were written meanwhile."""
    before = {item.uri for item in storage.list_objects(str(place / "root/shards"))}
    act()
    found: dict[str, set[str]] = {}
    for item in storage.list_objects(str(place / "root/shards")):
        if item.uri not in before:
            stage = item.uri.split("/shards/")[1].split("/")[0]
            schema = {"ingest": "probes", "gvf": "gvf", "export": "features"}[stage]
            column = "uri" if stage == "ingest" else "video"
            names = read_table(item.uri, schema, columns=[column])[column].to_pylist()
            found.setdefault(stage, set()).update(Path(name).stem for name in names)
    return found


def test_with_nothing_new_no_frame_is_decoded_and_no_network_run(
    place: Path, forward_passes: list[str]
) -> None:
    config = config_of(place)
    first = run(config)
    assert forward_passes
    files = published_files(config.root_uri)
    spoil(place)
    forward_passes.clear()
    again = run(config)
    assert forward_passes == []
    assert all(report.reused for report in again.values())
    assert {name: report.artifact for name, report in again.items()} == {
        name: report.artifact for name, report in first.items()
    }
    assert published_files(config.root_uri) == files
    assert stale(config) == set()


def test_new_videos_are_the_only_ones_that_are_touched(place: Path) -> None:
    config = config_of(place)
    features = run(config, "export")["export"].artifact
    spoil(place)
    write_videos(place / "videos", first=NUM_VIDEOS, count=2)
    write_annotations(place / "annotations.csv", count=NUM_VIDEOS + 2)
    new = {f"video{NUM_VIDEOS}", f"video{NUM_VIDEOS + 1}"}
    assert states(config)["ingest"] == (
        "stale",
        f"2 new ({', '.join(sorted(new))}); 2 of 9 videos to do",
    )
    reports: dict[str, StageReport] = {}
    done = videos_in_new_shards(place, lambda: reports.update(run(config, "export")))
    assert done == {"ingest": new, "gvf": new, "export": new}
    later = reports["export"].artifact
    for number in range(NUM_VIDEOS):
        name = f"npy/video{number}.npy"
        assert storage.read_bytes(later.file(name)) == storage.read_bytes(features.file(name))
    assert reports["ingest"].summary["ok"] == NUM_VIDEOS + 2


def test_a_changed_video_of_the_same_name_is_noticed(place: Path) -> None:
    config = config_of(place)
    run(config, "export")
    spoil(place)
    changed, removed = place / "videos/video1.mp4", place / "videos/video2.mp4"
    write_videos(place / "videos", first=20, count=1)
    (place / "videos/video20.mp4").rename(changed)
    removed.unlink()
    assert states(config)["ingest"] == (
        "stale",
        "1 changed (video1); 1 removed (video2); 1 of 6 videos to do",
    )
    done = videos_in_new_shards(place, lambda: run(config, "export"))
    assert done == {"ingest": {"video1"}, "gvf": {"video1"}, "export": {"video1"}}
    assert stale(config) == {"evaluate"}


def test_a_file_that_was_only_touched_costs_one_probing(place: Path) -> None:
    config = config_of(place)
    run(config, "export")
    os.utime(place / "videos/video1.mp4")
    reports: dict[str, StageReport] = {}
    done = videos_in_new_shards(place, lambda: reports.update(run(config, "export")))
    assert done == {"ingest": {"video1"}}
    assert [name for name, report in reports.items() if not report.reused] == ["ingest"]


@pytest.fixture(scope="module")
def finished(dataset: Path) -> Path:
    """A dataset with everything done."""
    run(config_of(dataset.parent))
    return dataset.parent


def followers(stages: set[str]) -> set[str]:
    """Stages, and those that read what they publish, and so on."""
    for stage in USED:
        if stages & set(pipeline.INPUTS[stage]):
            stages = stages | {stage}
    return stages


@pytest.mark.parametrize(
    ("change", "stages", "reason"),
    [
        ("ingest.truncated=keep", {"ingest"}, "truncated quarantine → keep"),
        ("annotate.min_background_clips=0.6", {"annotate"}, "min_background_clips 0.5 → 0.6"),
        ("index.subsets=[training]", {"index"}, 'subsets null → ["training"]'),
        ("gvf.pooling=avg", {"gvf"}, "gvf.pooling max → avg"),
        ("export.formats=[npy]", {"export"}, 'parquet"] → ["npy"]'),
        ("export.stride=4", {"export"}, "stride 8 → 4"),
        ("evaluate.subset=training", {"evaluate"}, "subset validation → training"),
        ("clip.length=4", {"index", "gvf", "export"}, "length 8 → 4"),
        ("runtime.workers=1", set(), ""),
        ("export.batch_size=3", set(), ""),
    ],
)
def test_a_change_makes_its_stage_stale_and_what_follows(
    finished: Path, change: str, stages: set[str], reason: str
) -> None:
    found = states(config_of(finished, change))
    assert stale(config_of(finished, change)) == followers(stages)
    assert {state for state, _ in found.values()} <= {"done", "stale"}
    if stages:
        first = min(stages, key=USED.index)
        assert reason in found[first][1]


def test_changed_annotations_are_told(place: Path) -> None:
    config = config_of(place)
    run(config, "annotate")
    path = place / "annotations.csv"
    path.write_text(path.read_text().replace("0.4,1.4", "0.4,1.5"))
    assert states(config)["annotate"] == ("stale", "annotations changed")
    assert states(config)["ingest"][0] == "done"


def test_runs_over_the_same_root_at_once_agree(place: Path) -> None:
    alone = config_of(place)
    run(alone)
    expected = published_files(alone.root_uri)
    config = config_of(place, f"root={place / 'other'}")
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(run, [config] * 3))
    assert reports[0]["export"].artifact == reports[1]["export"].artifact
    assert published_files(config.root_uri) == expected
    assert look(config.root_uri)[1] == []
    assert stale(config) == set()


def test_wrong_annotations_are_told_before_a_video_is_decoded(place: Path) -> None:
    config = config_of(place)
    annotations = config.annotate.annotations
    assert isinstance(annotations, str)
    Path(annotations).write_text("video,label,t-start,t-end,subset\nv0,walk,2,1,training\n")
    with pytest.raises(AnnotationError, match=r"annotations\.csv: .*line 2"):
        run(config)
    assert not storage.exists(storage.join(config.root_uri, "ingest"))
    assert not storage.exists(storage.join(config.root_uri, "shards"))

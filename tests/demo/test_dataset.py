"""The demo data set: real files of many kinds, the same every time, made once."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tsp_core.config.io import load_config
from tsp_core.demo import make_demo
from tsp_core.demo.encode import FORMATS
from tsp_core.demo.scene import CLASSES
from tsp_core.errors import ConfigError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo with every format."""
    return make_demo(tmp_path_factory.mktemp("demo"), minutes=2.6).parent


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "videos").iterdir())}


def _database(folder: Path) -> dict[str, dict[str, object]]:
    database: dict[str, dict[str, object]] = json.loads(
        (folder / "annotations.json").read_text(encoding="utf-8")
    )["database"]
    return database


def _read(path: Path) -> tuple[list[float], str, Fraction]:
    """Times of the frames in seconds, the codec, the frame rate that the file says."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = sorted(float(frame.pts * frame.time_base) for frame in container.decode(stream))
        assert stream.average_rate is not None
        return times, stream.codec_context.name, stream.average_rate


def test_files_are_of_every_format(demo: Path) -> None:
    found = [(path.suffix[1:], *_read(path)[1:]) for path in sorted((demo / "videos").iterdir())]
    assert len(found) >= len(FORMATS)
    assert {extension for extension, _, _ in found} == {"mp4", "avi", "mkv", "webm", "mov"}
    assert {codec for _, codec, _ in found} >= {"h264", "mpeg4", "vp8"}
    assert Fraction(30000, 1001) in {rate for _, _, rate in found}


def test_measured_durations_are_those_annotated(demo: Path) -> None:
    database = _database(demo)
    irregular = 0
    for path in sorted((demo / "videos").iterdir()):
        times, _, _ = _read(path)
        video_format = FORMATS[int(path.stem[-5:]) % len(FORMATS)]
        measured = times[-1] - times[0] + float(1 / video_format.frame_rate)
        assert measured == pytest.approx(database[path.stem]["duration"], abs=0.01)
        irregular += bool(np.ptp(np.diff(times)) > 0.9 / float(video_format.frame_rate))
    assert irregular == sum(1 for item in FORMATS if item.dropped)


def test_annotations_are_inside_the_videos_and_both_subsets_are_there(demo: Path) -> None:
    database = _database(demo)
    assert {video["subset"] for video in database.values()} == {"training", "validation"}
    for video in database.values():
        for annotation in video["annotations"]:  # type: ignore[attr-defined]
            start, end = annotation["segment"]
            assert 0 < start < end < video["duration"]
            assert annotation["label"] in CLASSES


def test_the_configuration_loads_and_points_at_the_demo(demo: Path) -> None:
    config = load_config(str(demo / "config.yaml"))
    assert config.ingest.videos == str(demo / "videos")
    assert config.annotate.annotations == str(demo / "annotations.json")
    assert config.root == str(demo / "store")


def test_a_larger_demo_holds_the_smaller_one_byte_by_byte(demo: Path, tmp_path: Path) -> None:
    make_demo(tmp_path, minutes=0.1)
    small = _files(tmp_path)
    assert len(small) == 3
    large = _files(demo)
    assert small == {name: large[name] for name in small}
    make_demo(tmp_path, minutes=1.5)
    grown = _files(tmp_path)
    assert len(grown) > 3
    assert grown == {name: large[name] for name in grown}


def test_what_is_there_is_kept_and_what_is_missing_is_made(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    config = make_demo(tmp_path, minutes=0.1, progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == [0, 1, 2, 3]
    videos = sorted((tmp_path / "videos").iterdir())
    before = _files(tmp_path)
    kept = videos[0].stat().st_mtime_ns
    videos[1].unlink()
    (tmp_path / "videos" / f".{videos[1].name}.tmp").write_bytes(b"half a video")
    config.write_text("name: edited\nroot: store\n", encoding="utf-8")
    make_demo(tmp_path, minutes=0.1)
    assert _files(tmp_path) == before
    assert videos[0].stat().st_mtime_ns == kept
    assert load_config(str(config)).name == "edited"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minutes": 0.0}, r"minutes: 0\.0: give the length"),
        ({"minutes": float("nan")}, r"minutes: nan: give the length"),
        ({"seed": -1}, r"seed: -1: give a number"),
    ],
)
def test_impossible_sizes_are_refused(
    tmp_path: Path, arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_demo(tmp_path, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "found",
    [
        '{"version": "demo 1, seed 1", "database": {}}',
        '{"version": "demo 1, seed 0", "database": {"demo_00099": {}}}',
        "[]",
        "not JSON",
    ],
)
def test_another_demo_in_the_folder_is_refused(tmp_path: Path, found: str) -> None:
    (tmp_path / "annotations.json").write_text(found, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"annotations\.json: the folder holds .* choose another"):
        make_demo(tmp_path, minutes=0.1)
    assert (tmp_path / "annotations.json").read_text(encoding="utf-8") == found

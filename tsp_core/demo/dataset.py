"""Makes the demo data set: untrimmed videos, ActivityNet-style annotations and a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core import storage
from tsp_core.demo.config_text import CONFIG_TEXT
from tsp_core.demo.encode import FORMATS, VideoFormat, encode
from tsp_core.demo.scene import Scene, draw_frame, draw_ground, plan_scene, random_stream
from tsp_core.errors import ConfigError

VERSION = 1
"""Raised whenever the same seed gives other videos."""

_MIN_VIDEOS = 3  # two to train on, one to validate on
_DROPS = 3  # stream of random numbers; the others are in `scene`

DemoProgress = Callable[[int, int, str], None]
"""Called with the videos done, the videos in all, and the name of the last one."""


def _silent(done: int, total: int, video: str) -> None:
    """Ignore progress."""


def make_demo(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float = 8.0,
    progress: DemoProgress = _silent,
) -> Path:
    """Make the demo data set, or what is missing of it.

    Video i depends on the seed and i alone, so a larger data set holds the smaller ones. Files
    that are there are kept, an edited configuration too.

    Args:
        out: Folder; gets `videos/`, `annotations.json` and `config.yaml`.
        seed: Seed of everything that is drawn.
        minutes: Video to make, in minutes: at least this much, and at least three videos.
        progress: Called before the first video and after each.

    Returns:
        The configuration, with which the whole pipeline runs.

    Raises:
        ConfigError: `minutes` or `seed` is out of range, or the folder holds another demo.
    """
    if not 0 < minutes < float("inf"):
        raise ConfigError(f"minutes: {minutes}: give the length of the demo as a positive number")
    if seed < 0:
        raise ConfigError(f"seed: {seed}: give a number that is not negative")
    folder = Path(out)
    scenes = list(_scenes(seed, minutes))
    _write_annotations(folder / "annotations.json", seed, scenes)
    for done, scene in enumerate(scenes):
        progress(done, len(scenes), _name(scene))
        _write_video(folder / "videos", scene)
    progress(len(scenes), len(scenes), _name(scenes[-1]))
    config = folder / "config.yaml"
    if not config.exists():
        storage.write_bytes(str(config), CONFIG_TEXT.encode())
    return config


def _scenes(seed: int, minutes: float) -> Iterator[Scene]:
    index, seconds = 0, 0.0
    while index < _MIN_VIDEOS or seconds < 60 * minutes:
        scene = plan_scene(seed, index)
        yield scene
        seconds += scene.duration_seconds
        index += 1


def _name(scene: Scene) -> str:
    return f"demo_{scene.index:05d}"


def _format(scene: Scene) -> VideoFormat:
    return FORMATS[scene.index % len(FORMATS)]


def _num_frames(scene: Scene) -> int:
    return round(scene.duration_seconds * _format(scene).frame_rate)


def _write_annotations(path: Path, seed: int, scenes: list[Scene]) -> None:
    document: dict[str, Any] = {
        "version": f"demo {VERSION}, seed {seed}",
        "database": {_name(scene): _annotated(scene) for scene in scenes},
    }
    if path.exists():
        _check_same_demo(path, document)
    storage.write_bytes(str(path), (json.dumps(document, indent=1) + "\n").encode())


def _check_same_demo(path: Path, document: dict[str, Any]) -> None:
    """Refuse to mix videos of two demos; growing one is fine."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version, videos = found["version"], found["database"].keys()
    except (ValueError, KeyError, TypeError, AttributeError):
        version, videos = "something else", set()
    if version != document["version"] or not videos <= document["database"].keys():
        raise ConfigError(
            f"{path}: the folder holds {version!r} with {len(videos)} videos, asked for is "
            f"{document['version']!r} with {len(document['database'])}; "
            "choose another folder, or delete this one"
        )


def _annotated(scene: Scene) -> dict[str, Any]:
    video_format = _format(scene)
    return {
        # one in three for validation; coprime to the number of formats
        "subset": "validation" if scene.index % 3 == 2 else "training",
        "duration": round(float(_num_frames(scene) / video_format.frame_rate), 3),
        "resolution": f"{video_format.width}x{video_format.height}",
        "annotations": [
            {"segment": [part.start_seconds, part.end_seconds], "label": part.motion}
            for part in scene.parts
            if part.is_action
        ],
    }


def _write_video(folder: Path, scene: Scene) -> None:
    video_format = _format(scene)
    target = folder / f"{_name(scene)}.{video_format.extension}"
    if target.exists():  # renamed into place when complete
        return
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{target.name}.tmp"
    encode(aside, _frames(scene, video_format), video_format)
    aside.replace(target)


def _frames(scene: Scene, video_format: VideoFormat) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    num_frames = _num_frames(scene)
    ground = draw_ground(scene, video_format.width, video_format.height)
    kept = random_stream(scene.seed, scene.index, _DROPS).random(num_frames) >= video_format.dropped
    kept[[0, -1]] = True  # the video's extent stays
    for number in np.flatnonzero(kept).tolist():
        time_seconds = float(number / video_format.frame_rate)
        yield number, draw_frame(scene, ground, number, time_seconds)

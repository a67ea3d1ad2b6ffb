"""How long videos are by their headers: enough to tell milliseconds and frames from seconds.

Headers may lie, so nothing is refused by them; the stage annotate judges by measured lengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import av

from tsp_core import storage
from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.records import AnnotatedVideo
from tsp_core.annotations.units import check_units
from tsp_core.config import RuntimeConfig
from tsp_core.errors import AnnotationError, TspError
from tsp_core.video.decode import opened_video
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

_VIDEOS_PER_SUBSET = 8  # spread over the file; opening one takes milliseconds


def doubtful_units(annotated: Sequence[AnnotatedVideo], uris: Mapping[str, str]) -> str:
    """Tell by some videos' headers whether the times of the annotations can be seconds.

    Videos in remote stores are not fetched for it.

    Args:
        annotated: The videos.
        uris: Where the files are, by annotated name.

    Returns:
        What the stage annotate would say, '' where the times look right or nothing is known.
    """
    known: dict[str, KnownVideo] = {}
    for video in _sample(annotated, uris):
        seconds = _seconds(uris[video.name])
        known[video.name] = KnownVideo(name=video.name, duration_seconds=seconds)
    try:
        check_units(annotated, known)
    except AnnotationError as error:
        return str(error)
    return ""


def header_seconds(path: Path) -> float | None:
    """The duration that a local video file's header states, if it does.

    Raises:
        VideoError: It cannot be opened.
    """
    with opened_video(path) as (container, _):
        return None if container.duration is None else container.duration / av.time_base


def _seconds(uri: str) -> float | None:
    limits = DecodingLimits.of(RuntimeConfig())
    try:
        return run_sandboxed(header_seconds, storage.local_path(uri), limits)
    except TspError:  # ingest says what is wrong with the file
        return None


def _sample(annotated: Sequence[AnnotatedVideo], uris: Mapping[str, str]) -> list[AnnotatedVideo]:
    by_subset: dict[str | None, list[AnnotatedVideo]] = {}
    for video in annotated:
        if video.segments and video.name in uris and storage.is_local(uris[video.name]):
            by_subset.setdefault(video.subset, []).append(video)
    return list(itertools.chain.from_iterable(map(_spread, by_subset.values())))


def _spread(videos: Sequence[AnnotatedVideo]) -> list[AnnotatedVideo]:
    count = min(len(videos), _VIDEOS_PER_SUBSET)
    return [videos[number * len(videos) // count] for number in range(count)]

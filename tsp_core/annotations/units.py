"""Tells times in milliseconds or frames from seconds: they lie far beyond their videos.

Annotators do overshoot: of the published rows, 7 % (ActivityNet) and 0.1 % (THUMOS14) end beyond
their videos. Only one row in 10,000 does so by more than half of the video, against nearly all
rows whose times are frames or milliseconds: even at 10 frames per second a row in frames has to
end within the first 15 % of its video to look right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.records import AnnotatedSegment, AnnotatedVideo, refuse, show

_FAR = 1.5  # durations of the video
_MOST = 0.5  # of a subset's rows
_LEAST_ROWS = 3  # of fewer, a slip or two is most already


def check_units(annotated: Sequence[AnnotatedVideo], matched: Mapping[str, KnownVideo]) -> None:
    """Refuse annotations most of whose rows end far beyond their videos.

    Each subset is judged by itself: often it is a file of its own.

    Args:
        annotated: The videos.
        matched: Those that are known, by annotated name.

    Raises:
        AnnotationError: Naming the file, a row, and how long its video is.
    """
    num_rows: dict[str | None, int] = {}
    far: dict[str | None, list[tuple[AnnotatedVideo, AnnotatedSegment, float]]] = {}
    for video, segment, seconds in _rows(annotated, matched):
        num_rows[video.subset] = num_rows.get(video.subset, 0) + 1
        if segment.end_seconds > _FAR * seconds:
            far.setdefault(video.subset, []).append((video, segment, seconds))
    for subset, rows in far.items():
        if num_rows[subset] >= _LEAST_ROWS and len(rows) > _MOST * num_rows[subset]:
            raise _not_seconds(rows[0], len(rows), num_rows[subset], subset)


def _rows(
    annotated: Sequence[AnnotatedVideo], matched: Mapping[str, KnownVideo]
) -> Iterator[tuple[AnnotatedVideo, AnnotatedSegment, float]]:
    """The rows with finite times of the usable videos, with the durations."""
    for video in annotated:
        known = matched.get(video.name)
        if known is None or known.duration_seconds is None:
            continue
        for segment in video.segments:
            if math.isfinite(segment.start_seconds) and math.isfinite(segment.end_seconds):
                yield video, segment, known.duration_seconds


def _not_seconds(
    example: tuple[AnnotatedVideo, AnnotatedSegment, float],
    num_far: int,
    num_rows: int,
    subset: str | None,
) -> Exception:
    video, segment, seconds = example
    whose = f" of the subset {show(subset)}" if subset is not None else ""
    return refuse(
        segment.file,
        segment.place,
        f"video {show(video.name)}: [{segment.start_seconds}, {segment.end_seconds}], but the "
        f"video lasts {seconds:.3f} s, and {num_far} of the {num_rows} rows{whose} end as far "
        "beyond their videos; are the times in seconds? Divide milliseconds by 1000, and frames by "
        "the frame rate; or the files are other cuts of the videos than those annotated",
    )

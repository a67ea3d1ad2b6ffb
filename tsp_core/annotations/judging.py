"""Judges annotated videos, times and labels: what is wrong is an error or a reported problem."""

from __future__ import annotations

import difflib
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.records import AnnotatedSegment, AnnotatedVideo, refuse, show

_TOLERANCE_SECONDS = 1e-6  # an end beyond the video's by less is a file's rounding


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """How annotations are judged and background is cut; see `tsp_core.config.AnnotateConfig`.

    Attributes:
        cut_background: False for formats that state their background.
        keep_negative: Keep segments that start before 0, as the released ground truth does, which
            has all segments as annotated.
        keep_duplicates: Keep rows that say the same of a video twice, as the released ground truth
            does; else the first of them counts.
        known_from: The file that lists the videos, for messages; None where they were ingested.
    """

    classes: tuple[str, ...] | None = None
    video_prefix: str | None = None
    cut_background: bool = True
    official_background: bool = False
    min_background_clips: float = 5.0
    on_missing_video: Literal["report", "fail"] = "report"
    on_bad_segment: Literal["report", "fail"] = "fail"
    keep_negative: bool = False
    keep_duplicates: bool = False
    known_from: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something in the annotations that a person should know.

    Attributes:
        code: missing_video, quarantined_video: the segments are kept, without background;
            not_finite, reversed, negative, unknown_class, duplicate: the segment is left out
            (duplicates are kept by `keep_duplicates`);
            beyond_end, empty_segment: the segment is kept as annotated.
        file: Name of the file, without its folder.
        video: Name as annotated.
        value: The offending value.
        message: What is wrong, where, and the fix.
    """

    code: str
    file: str
    video: str
    value: str
    message: str


def check_subsets(annotated: Sequence[AnnotatedVideo]) -> None:
    """Make sure that every video is in a subset.

    Raises:
        AnnotationError: One is not; names its first row and what to do.
    """
    video = next((video for video in annotated if video.subset is None), None)
    if video is None:
        return
    if all(video.subset is None for video in annotated):
        raise refuse(
            video.file,
            f"video {show(video.name)}",
            "the file names no subset; give annotate.annotations as {subset: path}, as in "
            "{training: train.csv, validation: valid.csv}",
        )
    file, place = video.file, ""
    if video.segments:
        file, place = video.segments[0].file, f"{video.segments[0].place}: "
    raise refuse(
        file,
        f"{place}video {show(video.name)}",
        "the column or key 'subset' is empty, while other videos have one; fill it in",
    )


def judge_video(
    video: AnnotatedVideo, known: KnownVideo | None, rules: SegmentRules
) -> Iterator[Problem]:
    """Judge whether a video is there and usable.

    Raises:
        AnnotationError: It is not there and `rules.on_missing_video` is "fail".
    """
    if known is not None and known.duration_seconds is not None:
        return
    if known is None:
        code = "missing_video"
        message = "no such video was ingested; add its file or remove its annotations"
        if rules.known_from is not None:
            message = f"{show(video.name)} has no row in {rules.known_from}; add one, or ignore it"
        if rules.on_missing_video == "fail":
            raise refuse(video.file, f"video {show(video.name)}", message)
    else:
        code, message = "quarantined_video", f"the video is in quarantine ({known.reason})"
    yield _problem(code, video, video.file, video.name, message)


def judge_segment(
    video: AnnotatedVideo, segment: AnnotatedSegment, rules: SegmentRules
) -> Problem | None:
    """Return what makes a segment unusable, or None.

    Raises:
        AnnotationError: Something does, and `rules.on_bad_segment` is "fail".
    """
    start, end = segment.start_seconds, segment.end_seconds
    value = f"[{start}, {end}]"
    if not (math.isfinite(start) and math.isfinite(end)):
        code, message = "not_finite", "times must be finite numbers of seconds"
    elif end < start:
        code, message = "reversed", "the end lies before the start; swap them"
    elif start < 0 and not rules.keep_negative:
        code, message = "negative", "the start lies before the video; set it to 0"
    elif segment.label is not None and rules.classes and segment.label not in rules.classes:
        code, value = "unknown_class", show(segment.label)
        message = f"not one of annotate.classes{_suggestion(segment.label, rules.classes)}"
    else:
        return None
    if rules.on_bad_segment == "fail":
        raise refuse(segment.file, segment.place, f"video {show(video.name)}: {value}: {message}")
    return _problem(code, video, segment.file, value, f"{segment.place}: {message}")


def judge_extent(
    video: AnnotatedVideo, segment: AnnotatedSegment, duration_seconds: float
) -> Iterator[Problem]:
    """Report what is odd about a usable segment of a video of known duration."""
    value = f"[{segment.start_seconds}, {segment.end_seconds}]"
    if segment.end_seconds > duration_seconds + _TOLERANCE_SECONDS:
        message = f"{segment.place}: ends beyond the video, which ends at {duration_seconds:.3f} s"
        yield _problem("beyond_end", video, segment.file, value, message)
    if segment.end_seconds == segment.start_seconds:
        message = f"{segment.place}: has no extent and holds no clip"
        yield _problem("empty_segment", video, segment.file, value, message)


def judge_repeat(
    video: AnnotatedVideo, segment: AnnotatedSegment, first: AnnotatedSegment, rules: SegmentRules
) -> Problem:
    """Report a usable segment that says what one before it says of the same video."""
    value = f"[{segment.start_seconds}, {segment.end_seconds}]"
    message = f"{segment.place}: the same as {first.place}, which counts; remove it"
    if rules.keep_duplicates:
        message = (
            f"{segment.place}: video {show(video.name)}: the same as {first.place}; both are kept "
            "as in the released ground truth, while `tsp run` counts one; remove it"
        )
    return _problem("duplicate", video, segment.file, value, message)


def _suggestion(label: str, classes: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(label, classes, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; add it there or fix the label"


def _problem(code: str, video: AnnotatedVideo, file: str, value: str, message: str) -> Problem:
    name = posixpath.basename(file.rstrip("/"))
    return Problem(code=code, file=name, video=video.name, value=value, message=message)

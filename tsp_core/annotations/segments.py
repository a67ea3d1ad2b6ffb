"""From annotated videos to segments: names matched, times and labels judged, background cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsp_core.annotations.background import OFFICIAL_CLIP_SECONDS, background_segments
from tsp_core.annotations.judging import (
    Problem,
    SegmentRules,
    judge_extent,
    judge_repeat,
    judge_segment,
    judge_video,
)
from tsp_core.annotations.matching import KnownVideo, match_videos
from tsp_core.annotations.records import AnnotatedSegment, AnnotatedVideo, Kind
from tsp_core.annotations.units import check_units

_STILL_AN_ACTION = ("unknown_class", "negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A segment of a video, in seconds, as annotated or cut.

    Attributes:
        video: The known video's name; the annotated name where there is no such video.
        name: The video's name as annotated.
        label: None unless an action.
    """

    video: str
    name: str
    subset: str | None
    kind: Kind
    label: str | None
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentSet:
    """The segments of a dataset, in the order of the annotations.

    Attributes:
        segments: Of each video what is annotated, then the background that is cut.
        problems: What people should know.
        classes: Labels in index order.
        videos: Usable videos of each subset, with and without segments.
    """

    segments: tuple[Segment, ...]
    problems: tuple[Problem, ...]
    classes: tuple[str, ...]
    videos: dict[str | None, tuple[str, ...]]


def build_segments(
    annotated: Sequence[AnnotatedVideo], known: Mapping[str, KnownVideo], rules: SegmentRules
) -> SegmentSet:
    """Match annotated videos with known ones, judge every segment, cut the background.

    Videos that are unknown or in quarantine keep their segments, without background, so that the
    clip index counts them. A bad segment is left out, but where its times are good its span is no
    background.

    Raises:
        AnnotationError: A bad segment or missing video where the rules say "fail"; names that
            match no video, or two that match one; times that are no seconds.
    """
    matched = match_videos(annotated, known, rules.video_prefix)
    if rules.on_bad_segment == "fail":
        check_units(annotated, matched)
    segments: list[Segment] = []
    problems: list[Problem] = []
    videos: dict[str | None, list[str]] = {}
    for video in annotated:
        target = matched.get(video.name)
        problems += judge_video(video, target, rules)
        if target is not None and target.duration_seconds is not None:
            videos.setdefault(video.subset, []).append(target.name)
        found, odd = _segments_of(video, target, rules)
        segments += found
        problems += odd
    labels = {segment.label for segment in segments if segment.label is not None}
    return SegmentSet(
        segments=tuple(segments),
        problems=tuple(problems),
        classes=rules.classes or tuple(sorted(labels)),
        videos={subset: tuple(names) for subset, names in videos.items()},
    )


def _segments_of(
    video: AnnotatedVideo, target: KnownVideo | None, rules: SegmentRules
) -> tuple[list[Segment], list[Problem]]:
    duration = target.duration_seconds if target is not None else None
    segments: list[Segment] = []
    problems: list[Problem] = []
    occupied: list[tuple[float, float]] = []
    seen: dict[tuple[Kind, str | None, float, float], AnnotatedSegment] = {}

    def append(kind: Kind, label: str | None, start: float, end: float) -> None:
        """Add a segment of this video; times in seconds."""
        segments.append(
            Segment(
                video=target.name if target is not None else video.name,
                name=video.name,
                subset=video.subset,
                kind=kind,
                label=label,
                start_seconds=start,
                end_seconds=end,
            )
        )

    for item in video.segments:
        bad = judge_segment(video, item, rules)
        if item.kind == "action" and (bad is None or bad.code in _STILL_AN_ACTION):
            occupied.append((item.start_seconds, item.end_seconds))
        if bad is not None:
            problems.append(bad)
            continue
        key = (item.kind, item.label, item.start_seconds, item.end_seconds)
        first = seen.setdefault(key, item)
        if first is not item:
            problems.append(judge_repeat(video, item, first, rules))
            if not rules.keep_duplicates:
                continue
        append(item.kind, item.label, item.start_seconds, item.end_seconds)
        if duration is not None:
            problems += judge_extent(video, item, duration)
    if duration is not None and rules.cut_background:
        gaps = background_segments(
            occupied,
            duration,
            min_seconds=rules.min_background_clips * OFFICIAL_CLIP_SECONDS,
            official=rules.official_background,
        )
        for start, end in gaps:
            append("background", None, start, end)
    return segments, problems

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tsp_core.annotations.judging import SegmentRules
from tsp_core.annotations.likeness import alike, alike_line
from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.metadata import read_metadata
from tsp_core.annotations.records import AnnotatedSegment, AnnotatedVideo, Kind
from tsp_core.annotations.registry import read_annotations
from tsp_core.annotations.segments import SegmentSet, build_segments
from tsp_core.annotations.tables import segments_table
from tsp_core.errors import AnnotationError


def segment(
    start: float, end: float, label: str | None = "run", kind: Kind = "action"
) -> AnnotatedSegment:
    return AnnotatedSegment(
        kind=kind,
        label=label,
        start_seconds=start,
        end_seconds=end,
        file="folder/labels.csv",
        place="line 7",
    )


def video(name: str, *segments: AnnotatedSegment) -> AnnotatedVideo:
    return AnnotatedVideo(name=name, subset="training", segments=segments, file="folder/labels.csv")


def build(*videos: AnnotatedVideo, known: dict[str, float | None], **rules: Any) -> SegmentSet:
    found = {
        name: KnownVideo(name=name, duration_seconds=seconds, reason="truncated")
        for name, seconds in known.items()
    }
    return build_segments(videos, found, SegmentRules(**rules))


def rows(found: SegmentSet) -> list[tuple[str, str, float, float]]:
    return [(s.video, s.label or s.kind, s.start_seconds, s.end_seconds) for s in found.segments]


def codes(found: SegmentSet) -> list[str]:
    return [problem.code for problem in found.problems]


def test_actions_come_first_then_the_background_of_the_video() -> None:
    found = build(
        video("a", segment(6, 7, "walk"), segment(1, 2)),
        video("b", segment(0, 9)),
        known={"a": 8.0, "b": 9.0, "c": 5.0},
        min_background_clips=1,
    )
    assert rows(found) == [
        ("a", "walk", 6, 7),
        ("a", "run", 1, 2),
        ("a", "background", 2, 6),
        ("b", "run", 0, 9),
    ]
    assert found.classes == ("run", "walk")
    assert found.videos == {"training": ("a", "b")}
    assert codes(found) == []


def test_a_video_without_actions_gives_no_rows() -> None:
    ambiguous = segment(1, 2, None, "ambiguous")
    found = build(video("a"), video("b", ambiguous), known={"a": 60.0, "b": 60.0})
    assert rows(found) == [("b", "ambiguous", 1, 2)]
    assert found.videos == {"training": ("a", "b")}


def test_ambiguous_spans_do_not_shorten_the_background() -> None:
    found = build(video("a", segment(0, 1), segment(3, 4, None, "ambiguous")), known={"a": 8.0})
    assert rows(found)[-1] == ("a", "background", 1, 8.0)


def test_formats_with_background_are_not_cut() -> None:
    found = build(
        video("a", segment(1, 2), segment(2, 3, None, "background")),
        known={"a": 60.0},
        cut_background=False,
    )
    assert rows(found) == [("a", "run", 1, 2), ("a", "background", 2, 3)]


@pytest.mark.parametrize(
    ("prefix", "matched"),
    [(None, {"a", "v_b"}), ("", {"a"}), ("v_", {"v_b"}), ("x-", {"x-c"})],
)
def test_names_are_tried_with_prefixes(prefix: str | None, matched: set[str]) -> None:
    videos = [video(name, segment(0, 9)) for name in "abc"]
    known: dict[str, float | None] = {"a": 9.0, "v_b": 9.0, "x-c": 9.0}
    found = build(*videos, known=known, video_prefix=prefix)
    assert set(found.videos["training"]) == matched
    assert codes(found) == ["missing_video"] * (3 - len(matched))


def test_names_that_match_nothing_or_one_video_twice_are_refused() -> None:
    with pytest.raises(AnnotationError, match=r"none of the 1 annotated .*'a.mp4'.* 1 known .*'a'"):
        build(video("a.mp4"), known={"a": 1.0})
    with pytest.raises(AnnotationError, match=r"known ones .there are none"):
        build(video("a"), known={})
    with pytest.raises(AnnotationError, match="names 'a' and 'v_a' both mean the video 'v_a'"):
        build(video("a"), video("v_a"), known={"v_a": 1.0})


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("annotated", "known"),
    [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (COMPOSED, f"v_{DECOMPOSED}")],
)
def test_names_that_look_the_same_match(annotated: str, known: str) -> None:
    found = build(video(annotated, segment(1, 2)), known={known: 9.0})
    assert {s.video for s in found.segments} == {known}
    assert codes(found) == []


@pytest.mark.parametrize(
    ("annotated", "known", "message"),
    [
        ("a.mp4", "a", "1 of them are names of videos when they are written without their ending"),
        ("v_a", "a", "written without the prefix 'v_'; see annotate.video_prefix"),
        ("x/a.mp4", "a", "without the folders in front and the ending '.mp4'"),
        ("x/a", "a", "written without the folders in front"),
        ("A", "a", "written in another case"),
        ("b", "a", "without their ending: see annotate.video_prefix"),
    ],
)
def test_what_names_need_to_match_is_told(annotated: str, known: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        build(video(annotated, segment(0, 1)), known={known: 9.0})


def test_classes_that_look_the_same_are_grouped() -> None:
    labels = ["Long Jump", "long_jump", "LongJump", "run", "Run ", "walk", "run"]
    assert alike(labels) == [["Long Jump", "LongJump", "long_jump"], ["Run ", "run"]]
    assert "'Run ' and 'run' differ" in alike_line(alike(["Run ", "run"]))
    assert "(and 1 more such)" in alike_line(alike(labels))
    assert alike(["run", "runs"]) == []


def test_a_name_as_written_is_taken_before_one_that_looks_the_same() -> None:
    known = {COMPOSED: 9.0, DECOMPOSED: 9.0}
    found = build(video(COMPOSED, segment(1, 2)), video(DECOMPOSED), known=known)
    assert {s.video for s in found.segments} == {COMPOSED}
    mixed = video("x\u00e9\u00e9")
    ambiguous: dict[str, float | None] = {"x\u00e9e\u0301": 9.0, "xe\u0301\u00e9": 9.0}
    with pytest.raises(AnnotationError, match=r"may mean 'x.* or 'x.*rename one of the files"):
        build(mixed, known=ambiguous)


def test_missing_and_quarantined_videos_keep_their_actions_without_background() -> None:
    videos = (video("a", segment(1, 2)), video("b", segment(3, 4)), video("c", segment(0, 9)))
    found = build(*videos, known={"b": None, "c": 9.0})
    assert rows(found) == [("a", "run", 1, 2), ("b", "run", 3, 4), ("c", "run", 0, 9)]
    assert codes(found) == ["missing_video", "quarantined_video"]
    assert "truncated" in found.problems[1].message
    assert found.videos == {"training": ("c",)}
    with pytest.raises(AnnotationError, match=r"labels.csv: video 'a': no such video was ingested"):
        build(*videos, known={"b": None, "c": 9.0}, on_missing_video="fail")


@pytest.mark.parametrize(
    ("bad", "code", "message"),
    [
        (segment(math.nan, 1), "not_finite", r"\[nan, 1\]: times must be finite"),
        (segment(0, math.inf), "not_finite", r"\[0, inf\]: times must be finite"),
        (segment(3, 2), "reversed", r"\[3, 2\]: the end lies before the start"),
        (segment(-1, 2), "negative", r"\[-1, 2\]: the start lies before the video"),
        (segment(1, 2, "wlak"), "unknown_class", "'wlak': not one of .*did you mean 'walk'"),
        (segment(1, 2, "xyz"), "unknown_class", "'xyz': not one of annotate.classes; add it"),
    ],
)
def test_bad_segments_fail_or_are_left_out_and_reported(
    bad: AnnotatedSegment, code: str, message: str
) -> None:
    videos = (video("a", bad, segment(5, 6)), video("b", segment(0, 1)))
    known: dict[str, float | None] = {"a": 9.0, "b": 1.0}
    classes = ("walk", "run")
    with pytest.raises(AnnotationError, match=f"folder/labels.csv: line 7: video 'a': {message}"):
        build(*videos, known=known, classes=classes)
    found = build(*videos, known=known, classes=classes, on_bad_segment="report")
    assert [row for row in rows(found) if row[1] != "background"] == [
        ("a", "run", 5, 6),
        ("b", "run", 0, 1),
    ]
    assert codes(found) == [code]
    assert found.problems[0].file == "labels.csv"
    assert found.classes == classes


def test_the_span_of_a_segment_left_out_is_no_background() -> None:
    found = build(
        video("a", segment(-1, 20), segment(20, 50, "swim"), segment(50, 51)),
        known={"a": 60.0},
        classes=("run",),
        on_bad_segment="report",
    )
    assert codes(found) == ["negative", "unknown_class"]
    assert rows(found) == [("a", "run", 50, 51), ("a", "background", 51, 60.0)]


def test_ends_beyond_the_video_and_empty_segments_are_reported_and_kept() -> None:
    found = build(video("a", segment(0, 9.5), segment(3, 3), segment(1, 9 + 1e-7)), known={"a": 9})
    assert codes(found) == ["beyond_end", "empty_segment"]
    assert "ends beyond the video, which ends at 9.000 s" in found.problems[0].message
    assert len(found.segments) == 3


def test_rows_that_say_the_same_count_once_and_are_reported() -> None:
    again = (segment(1, 2), segment(1, 2, "walk"), segment(1, 2), segment(1, 2.5))
    videos = (video("a", *again), video("b", segment(1, 2)))
    known: dict[str, float | None] = {"a": 9.0, "b": 3.0}
    found = build(*videos, known=known)
    assert codes(found) == ["duplicate"]
    assert found.problems[0].message == "line 7: the same as line 7, which counts; remove it"
    actions = [row for row in rows(found) if row[1] != "background"]
    assert actions == [
        ("a", "run", 1, 2),
        ("a", "walk", 1, 2),
        ("a", "run", 1, 2.5),
        ("b", "run", 1, 2),
    ]
    kept = build(*videos, known=known, keep_duplicates=True)
    assert codes(kept) == ["duplicate"]
    assert "line 7: video 'a': the same as line 7; both are kept" in kept.problems[0].message
    assert [row for row in rows(kept) if row[1] == "background"] == [
        row for row in rows(found) if row[1] == "background"
    ]
    assert len(kept.segments) == len(found.segments) + 1


@pytest.mark.parametrize("factor", [1000, 10], ids=["milliseconds", "frames"])
def test_times_that_are_no_seconds_are_refused(factor: int) -> None:
    spans = [(2, 5), (8, 14), (20, 28), (29, 30)]
    right = video("a", *(segment(*span) for span in spans))
    wrong = video("b", *(segment(factor * start, factor * end) for start, end in spans))
    known: dict[str, float | None] = {"a": 30.0, "b": 30.0, "c": 30.0}
    other = replace(right, name="c", subset="validation")
    with pytest.raises(
        AnnotationError,
        match=r"labels.csv: line 7: video 'b': \[.*\], but the video lasts 30.000 s, and . of the "
        "4 rows of the subset 'training' end as far .*are the times in seconds",
    ):
        build(wrong, other, known=known)
    assert set(codes(build(wrong, other, known=known, on_bad_segment="report"))) == {"beyond_end"}
    assert len(build(right, other, known=known).problems) == 0
    assert set(codes(build(right, wrong, other, known=known))) == {"beyond_end"}  # half of the rows
    assert codes(build(wrong, other, known=known | {"b": None})) == ["quarantined_video"]


def test_two_slips_among_two_rows_are_reported() -> None:
    found = build(video("a", segment(20, 30), segment(1, 40)), known={"a": 9.0})
    assert codes(found) == ["beyond_end", "beyond_end"]


def test_the_published_annotations_are_in_seconds(shared: Path) -> None:
    """Their rows do end beyond their videos, here and there."""
    known = {
        name: KnownVideo(name=name, duration_seconds=item.duration_seconds)
        for name, item in read_metadata(
            str(shared / "reference/activitynet_v1-3_valid_metadata.csv")
        ).items()
    }
    source = str(shared / "data/annotations/activitynet_v1-3_validation.json")
    found = build_segments(read_annotations(source, "activitynet"), known, SegmentRules())
    assert Counter(codes(found))["beyond_end"] == 537
    assert Counter(codes(found))["duplicate"] == 17


def test_the_table_has_indices_of_classes_and_regions() -> None:
    videos = video("a", segment(0, 1, "walk"), segment(2, 3), segment(4, 5, None, "ambiguous"))
    found = build(videos, known={"a": 60.0}, classes=("walk", "run"))
    table = segments_table(found.segments, found.classes).to_pydict()
    assert table["label"] == ["walk", "run", None, None]
    assert table["label_index"] == [0, 1, -1, -1]
    assert table["region"] == [0, 0, -1, 1]
    assert table["kind"] == ["action", "action", "ambiguous", "background"]

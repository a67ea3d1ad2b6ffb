"""The training ground truth as a file: what `tsp segments` writes.

A CSV has the columns of the released ground truth, so that the released code reads it; a Parquet
file holds the project's table of segments (`tsp_core.schemas.SEGMENTS`).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tsp_core import storage
from tsp_core.annotations.judging import Problem, SegmentRules
from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.metadata import VideoMetadata, read_metadata
from tsp_core.annotations.places import check_there
from tsp_core.annotations.records import AnnotatedVideo, refuse
from tsp_core.annotations.registry import find_format, read_annotations
from tsp_core.annotations.segments import Segment, SegmentSet, build_segments
from tsp_core.annotations.tables import segments_table
from tsp_core.annotations.tsp_csv import ACTION, GROUND_TRUTH_COLUMNS, NO_ACTION
from tsp_core.errors import AnnotationError, ConfigError
from tsp_core.schemas import SEGMENTS, write_table


@dataclass(frozen=True, kw_only=True)
class GroundTruthReport:
    """What was written.

    Attributes:
        out: Where.
        num_videos: Videos with at least one row.
        num_actions: Action rows.
        num_background: Background rows.
        classes: Labels of the action rows, sorted.
        problems: Odd and missing things that did not stop the work.
    """

    out: str
    num_videos: int
    num_actions: int
    num_background: int
    classes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def num_problems_by_code(self) -> dict[str, int]:
        """How many problems there are of each code."""
        return dict(Counter(problem.code for problem in self.problems))


def write_ground_truth(
    *,
    annotations: str | Mapping[str, str],
    format: str,
    videos: str,
    out: str,
    subset: str | None = None,
    official_background: bool = False,
    min_background_clips: float = 5.0,
    video_prefix: str | None = None,
    on_bad_segment: Literal["report", "fail"] = "fail",
) -> GroundTruthReport:
    """Write the ground truth of the videos of a metadata CSV.

    Action rows are the segments as annotated, even where they lie beyond the video. Annotated
    videos without metadata are reported; videos without annotations have no rows. Rows that
    say the same of a video are all written, as in the released ground truth, and are reported.

    Args:
        annotations: File or folder, or {subset: file or folder}.
        format: A name of `tsp_core.annotations.registry.FORMATS`.
        videos: CSV with the columns filename, video-duration (seconds), fps, video-frames.
        out: Path or URI that ends in .csv or .parquet.
        subset: Take this subset only; what names no subset is taken to be of it.
        official_background: Cut background exactly as the released ground truth.
        min_background_clips: Shortest background in clips of 16/15 s (released: 5 on ActivityNet,
            1 on THUMOS14).
        video_prefix: What file names have in front of annotated names; None tries "" then "v_".
        on_bad_segment: "report" leaves reversed and not finite segments out instead of failing.

    Raises:
        AnnotationError: The annotations or the metadata are wrong, or there is nothing to write.
        ConfigError: An impossible argument.
    """
    _check_arguments(out, min_background_clips)
    given = annotations.values() if isinstance(annotations, Mapping) else [annotations]
    if _same(out) in {_same(uri) for uri in (videos, *given)}:
        raise ConfigError(f"out {out!r}: is what the segments are made of; name another file")
    annotated = _of_subset(read_annotations(annotations, format, key="annotations"), subset)
    check_there(videos, key="videos")
    metadata = read_metadata(videos)
    rules = SegmentRules(
        video_prefix=video_prefix,
        cut_background=not find_format(format).has_background,
        official_background=official_background,
        min_background_clips=min_background_clips,
        on_bad_segment=on_bad_segment,
        keep_negative=True,
        keep_duplicates=True,
        known_from=videos,
    )
    found = build_segments(annotated, _known(metadata), rules)
    rows = _of_known_videos(found)
    if not rows:
        raise refuse(videos, "", "none of its annotated videos has a segment; see the annotations")
    if out.lower().endswith(".csv"):
        storage.write_bytes(out, _csv_text(rows, metadata).encode())
    else:
        write_table(out, segments_table(rows, found.classes), SEGMENTS)
    return _report(out, rows, found.problems)


def _same(uri: str) -> str:
    """Equal for a file by whatever name."""
    full = storage.absolute(uri)
    return str(storage.local_path(full).resolve()) if storage.is_local(full) else full


def _check_arguments(out: str, min_background_clips: float) -> None:
    if not out.lower().endswith((".csv", ".parquet")):
        raise ConfigError(f"out {out!r}: the name must end in .csv or .parquet")
    if not 0 <= min_background_clips < math.inf:
        raise ConfigError(f"min_background_clips {min_background_clips}: must be 0 or more")


def _of_subset(annotated: list[AnnotatedVideo], subset: str | None) -> list[AnnotatedVideo]:
    if subset is None:
        return annotated
    selected = [video for video in annotated if video.subset in (subset, None)]
    if not selected:
        known = sorted({video.subset for video in annotated if video.subset is not None})
        raise AnnotationError(
            f"subset {subset!r}: no such subset in the annotations; use one of {', '.join(known)}"
        )
    return selected


def _known(metadata: Mapping[str, VideoMetadata]) -> dict[str, KnownVideo]:
    return {
        name: KnownVideo(name=name, duration_seconds=video.duration_seconds)
        for name, video in metadata.items()
    }


def _of_known_videos(found: SegmentSet) -> list[Segment]:
    """Actions and background of the videos that have metadata."""
    known = {name for names in found.videos.values() for name in names}
    return [item for item in found.segments if item.kind != "ambiguous" and item.video in known]


def _csv_text(rows: Sequence[Segment], metadata: Mapping[str, VideoMetadata]) -> str:
    """Write rows in the released columns; numbers in the fewest digits that give them back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(GROUND_TRUTH_COLUMNS)
    for segment in rows:
        video = metadata[segment.video]
        writer.writerow(
            (
                segment.name,
                segment.start_seconds,
                segment.end_seconds,
                segment.label or "",
                video.duration_seconds,
                video.filename,
                video.frame_rate,
                video.num_frames,
                ACTION if segment.kind == "action" else NO_ACTION,
            )
        )
    return text.getvalue()


def _report(out: str, rows: Sequence[Segment], problems: tuple[Problem, ...]) -> GroundTruthReport:
    num_actions = sum(segment.kind == "action" for segment in rows)
    return GroundTruthReport(
        out=out,
        num_videos=len({segment.video for segment in rows}),
        num_actions=num_actions,
        num_background=len(rows) - num_actions,
        classes=tuple(sorted({segment.label for segment in rows if segment.label is not None})),
        problems=problems,
    )

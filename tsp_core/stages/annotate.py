"""Annotate: annotation files and the measured videos give segments, classes and problems.

Publishes `segments.parquet` (`SEGMENTS`), `classes.json` (labels in index order), `subsets.json`
(usable videos of each subset, also those without segments) and `problems.parquet` (`PROBLEMS`).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsp_core import artifacts
from tsp_core.annotations.judging import SegmentRules, check_subsets, judge_segment
from tsp_core.annotations.likeness import alike, alike_line
from tsp_core.annotations.matching import KnownVideo, match_videos
from tsp_core.annotations.records import AnnotatedVideo
from tsp_core.annotations.registry import content_digest, find_format, read_annotations
from tsp_core.annotations.segments import SegmentSet, build_segments
from tsp_core.annotations.tables import problems_table, segments_table
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import AnnotateConfig, Config, recipe_fields
from tsp_core.errors import ConfigError, TransientError
from tsp_core.schemas import PROBLEMS, SEGMENTS, read_table, write_table
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    planned,
)
from tsp_core.video.listing import list_sources

VERSION = 3
_LISTS = (".csv", ".parquet")
_MOST_PLACES = 100  # folders and files to look at before a run begins
_log = logging.getLogger(__name__)


def plan(config: Config, inputs: Inputs) -> Plan:
    """Hash the annotation files and look the artifact up.

    Raises:
        AnnotationError: A file cannot be read.
        ConfigError: No annotations are configured.
    """
    section = config.annotate
    fields = recipe_fields(section)
    fields["annotations"] = content_digest(_source(section), section.format)
    recipe = Recipe(
        stage="annotate",
        version=VERSION,
        config=fields,
        inputs={"ingest": inputs["ingest"].digest},
    )
    return planned(config, recipe)


def read(config: Config) -> list[AnnotatedVideo]:
    """Read the annotations and refuse what is wrong with them whatever the videos are.

    Needs no other stage's output, so that a run can fail by it before the first video is decoded.
    Of classes that look the same it warns.

    Raises:
        AnnotationError: Naming the file, the place, the value and the fix.
        ConfigError: No annotations are configured.
    """
    annotated = _read(config)
    labels = {segment.label for video in annotated for segment in video.segments}
    if groups := alike(label for label in labels if label is not None):
        _log.warning("annotate: %s", alike_line(groups))
    return annotated


def check_names(config: Config, annotated: Sequence[AnnotatedVideo]) -> None:
    """Refuse annotations of other videos before those that are there are decoded.

    The files are listed for it, as ingest lists them; what a list file names is not looked up.

    Raises:
        AnnotationError: No annotated video is among the files.
    """
    videos = config.ingest.videos or ()
    given = [videos] if isinstance(videos, str) else videos
    is_list = len(given) > _MOST_PLACES or any(uri.lower().endswith(_LISTS) for uri in given)
    if not given or is_list:
        return  # looking all files of a list up may take minutes
    try:
        names = [source.name for source in list_sources(config.ingest)]
    except (ConfigError, TransientError):
        return  # ingest says it, or tries again
    known = {name: KnownVideo(name=name, duration_seconds=None) for name in names}
    match_videos(annotated, known, config.annotate.video_prefix)


def _read(config: Config) -> list[AnnotatedVideo]:
    section = config.annotate
    annotated = read_annotations(_source(section), section.format)
    check_subsets(annotated)
    rules = _rules(section)
    for video in annotated:
        for segment in video.segments:
            judge_segment(video, segment, rules)
    return annotated


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """There are no shards: annotations are read as a whole."""
    raise AssertionError("the stage 'annotate' has no shards")


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Read the annotations, judge them against the videos and publish the segments.

    Raises:
        AnnotationError: Naming the file, the place, the value and the fix.
    """
    section = config.annotate
    annotated = _read(config)
    progress(_progress(0, len(annotated), "annotations read"))
    found = build_segments(annotated, _known_videos(inputs["ingest"]), _rules(section))
    progress(_progress(len(annotated), len(annotated), f"{len(found.segments)} segments"))
    summary = _summary(annotated, found)
    artifact = _publish(config.root_uri, plan.recipe, found, summary)
    return StageReport(stage="annotate", artifact=artifact, summary=summary)


def _source(section: AnnotateConfig) -> str | dict[str, str]:
    if not section.annotations:
        raise ConfigError(
            "annotate.annotations: not set; give the path or URI of the annotations, or a mapping "
            "{subset: path}"
        )
    return section.annotations


def _rules(section: AnnotateConfig) -> SegmentRules:
    return SegmentRules(
        classes=section.classes,
        video_prefix=section.video_prefix,
        cut_background=not find_format(section.format).has_background,
        official_background=section.official_background,
        min_background_clips=section.min_background_clips,
        on_missing_video=section.on_missing_video,
        on_bad_segment=section.on_bad_segment,
    )


def _known_videos(ingest: ArtifactRef) -> dict[str, KnownVideo]:
    columns = ["video", "status", "code", "duration_seconds"]
    table = read_table(ingest.file("videos.parquet"), "videos", columns=columns)
    return {
        row["video"]: KnownVideo(
            name=row["video"],
            duration_seconds=row["duration_seconds"] if row["status"] == "ok" else None,
            reason=row["code"] or "",
        )
        for row in table.to_pylist()
    }


def _summary(annotated: list[AnnotatedVideo], found: SegmentSet) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for segment in found.segments:
        kinds = counts.setdefault(
            str(segment.subset), {"action": 0, "background": 0, "ambiguous": 0}
        )
        kinds[segment.kind] += 1
    return {
        "videos_annotated": len(annotated),
        "videos_usable": {str(name): len(videos) for name, videos in found.videos.items()},
        "segments": counts,
        "classes": len(found.classes),
        "problems": dict(Counter(problem.code for problem in found.problems)),
    }


def _publish(root: str, recipe: Recipe, found: SegmentSet, summary: dict[str, Any]) -> ArtifactRef:
    subsets = {str(subset): names for subset, names in found.videos.items()}
    with tempfile.TemporaryDirectory(prefix="tsp-annotate-") as folder:
        segments, problems = Path(folder, "segments.parquet"), Path(folder, "problems.parquet")
        write_table(str(segments), segments_table(found.segments, found.classes), SEGMENTS)
        write_table(str(problems), problems_table(found.problems), PROBLEMS)
        files: dict[str, Path | bytes] = {
            "segments.parquet": segments,
            "problems.parquet": problems,
            "classes.json": json.dumps(found.classes, indent=1).encode(),
            "subsets.json": json.dumps(subsets, indent=1).encode(),
        }
        return artifacts.publish(root, recipe, files, summary=summary)


def _progress(done: int, total: int, message: str) -> Progress:
    return Progress(stage="annotate", done=done, total=total, unit="videos", message=message)

"""Annotate: annotation files and the measured videos give segments, classes and problems.

Publishes `segments.parquet` (`SEGMENTS`), `classes.json` (labels in index order), `subsets.json`
(usable videos of each subset, also those without segments) and `problems.parquet` (`PROBLEMS`).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tsp_core import artifacts
from tsp_core.annotations.judging import SegmentRules, check_subsets, judge_segment
from tsp_core.annotations.matching import KnownVideo
from tsp_core.annotations.records import AnnotatedVideo
from tsp_core.annotations.registry import content_digest, find_format, read_annotations
from tsp_core.annotations.segments import SegmentSet, build_segments
from tsp_core.annotations.tables import problems_table, segments_table
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import AnnotateConfig, Config, recipe_fields
from tsp_core.errors import ConfigError
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

VERSION = 2


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

    Raises:
        AnnotationError: Naming the file, the place, the value and the fix.
        ConfigError: No annotations are configured.
    """
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
    annotated = read(config)
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

"""Index: which segments can hold a clip, and where in them a clip may start.

Publishes `clips.parquet` (`CLIPS`): one row per action and background segment of the indexed
subsets. Segments are clipped to the video; the admissible clip starts are
[t_start, t_end - clip length]. A segment that cannot hold one clip stays in the table as
"too_short", by the released code's criterion, and one whose video cannot be used as "no_video".
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core import artifacts
from tsp_core.artifacts import Recipe
from tsp_core.config import ClipConfig, Config, recipe_fields
from tsp_core.errors import AnnotationError
from tsp_core.schemas import CLIPS, read_table, write_table
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

VERSION = 1

_NO_ACTION = "No action"


def plan(config: Config, inputs: Inputs) -> Plan:
    """Look the artifact up; of the clip, only its extent in time matters here."""
    recipe = Recipe(
        stage="index",
        version=VERSION,
        config={
            **recipe_fields(config.index),
            "length": config.clip.length,
            "frame_rate": config.clip.frame_rate,
        },
        inputs={name: inputs[name].digest for name in ("ingest", "annotate")},
    )
    return planned(config, recipe)


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """There are no shards: the index is made as a whole."""
    raise AssertionError("the stage 'index' has no shards")


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Make the clip index and publish it.

    Raises:
        AnnotationError: A subset asked for is not annotated or has no segment that holds a clip.
    """
    segments = read_table(inputs["annotate"].file("segments.parquet"), "segments")
    segments = _select(segments, config.index.subsets)
    videos = read_table(
        inputs["ingest"].file("videos.parquet"),
        "videos",
        columns=["video", "status", "duration_seconds"],
    )
    clips = clip_table(segments, videos, config.clip)
    summary = _summary(clips, segments)
    _check_usable(summary, config.index.subsets)
    progress(
        Progress(stage="index", done=len(clips), total=len(clips), unit="segments", message="done")
    )
    with tempfile.TemporaryDirectory(prefix="tsp-index-") as folder:
        path = Path(folder, "clips.parquet")
        write_table(str(path), clips, CLIPS)
        files: dict[str, Path | bytes] = {path.name: path}
        artifact = artifacts.publish(config.root_uri, plan.recipe, files, summary=summary)
    return StageReport(stage="index", artifact=artifact, summary=summary)


def clip_table(segments: pa.Table, videos: pa.Table, clip: ClipConfig) -> pa.Table:
    """Compute the table `CLIPS`, row by row of the segments.

    Args:
        segments: Rows of `SEGMENTS`, actions and background.
        videos: The columns video, status, duration_seconds of `VIDEOS`.
        clip: Its length and frame rate give the extent of a clip.
    """
    usable = videos.filter(pc.field("status") == "ok")
    place = pc.index_in(segments["video"], value_set=usable["video"].combine_chunks())
    durations = pc.take(usable["duration_seconds"], place).to_numpy()
    has_video = np.isfinite(durations)
    t_start: NDArray[np.float64] = segments["t_start"].to_numpy()
    t_end: NDArray[np.float64] = segments["t_end"].to_numpy()
    limit = np.where(has_video, durations, np.inf)
    t_start = np.clip(t_start, 0.0, limit)
    t_end = np.clip(t_end, 0.0, limit)
    # The released code's criterion, in its arithmetic, so that the same segments stay.
    holds_clip = (t_end - t_start) * clip.frame_rate >= clip.length
    status = np.where(~has_video, "no_video", np.where(holds_clip, "ok", "too_short"))
    is_ok = status == "ok"
    last_start = np.maximum(t_end - clip.seconds, t_start)
    columns: dict[str, Any] = {
        "video": segments["video"],
        "subset": segments["subset"],
        "label_index": segments["label_index"],
        "region": segments["region"],
        "t_start": t_start,
        "t_end": t_end,
        "first_start": pa.array(t_start, mask=~is_ok),
        "last_start": pa.array(last_start, mask=~is_ok),
        "status": pa.array(status, type=pa.string()),
    }
    return pa.table(columns, schema=CLIPS.with_metadata())


def _select(segments: pa.Table, subsets: Sequence[str] | None) -> pa.Table:
    segments = segments.filter(pc.field("kind") != "ambiguous")
    if subsets is None:
        return segments
    known = sorted({str(subset) for subset in segments["subset"].unique().to_pylist()})
    for subset in subsets:
        if subset not in known:
            raise AnnotationError(
                f"index.subsets: {subset!r} is not annotated; the annotated subsets are "
                f"{', '.join(known) or 'none'}"
            )
    return segments.filter(pc.field("subset").isin(list(subsets)))


def _summary(clips: pa.Table, segments: pa.Table) -> dict[str, Any]:
    """Count rows by subset and status, and those that hold no clip by class too."""
    labels = (label or _NO_ACTION for label in segments["label"].to_pylist())
    statuses = map(str, clips["status"].to_pylist())
    rows = zip(map(str, clips["subset"].to_pylist()), statuses, labels, strict=True)
    subsets: dict[str, dict[str, int]] = {}
    unusable: dict[str, dict[str, dict[str, int]]] = {"too_short": {}, "no_video": {}}
    for (subset, status, label), count in sorted(Counter(rows).items()):
        subsets.setdefault(subset, {"ok": 0, "too_short": 0, "no_video": 0})[status] += count
        if status != "ok":
            unusable[status].setdefault(subset, {})[label] = count
    return {"segments": len(clips), "subsets": subsets, **unusable}


def _check_usable(summary: dict[str, Any], subsets: Sequence[str] | None) -> None:
    """Refuse an asked-for subset, or a whole index, that no clip can be taken from."""
    counts: dict[str, dict[str, int]] = summary["subsets"]
    empty = [subset for subset, found in counts.items() if not found["ok"]]
    if not counts:
        raise AnnotationError("index: there is no segment at all; see the problems of `annotate`")
    if empty and (subsets is not None or len(empty) == len(counts)):
        found = counts[empty[0]]
        raise AnnotationError(
            f"index: no segment of the subset {empty[0]!r} can hold a clip: {found['too_short']} "
            f"are shorter than one and {found['no_video']} belong to missing or quarantined "
            "videos; lower clip.length, raise clip.frame_rate or fix the annotations"
        )

"""The data set at a glance: videos, segments, classes, what was refused and what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsp_core.evaluation.blocks import (
    Block,
    Column,
    Facts,
    Section,
    Table,
    Text,
    format_duration,
    shortened_table,
)

_MAX_ROWS = 50
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4, mov", "matroska,webm": "mkv, webm"}
"""What FFmpeg calls the readers of several file endings, shortened."""

_UNUSED = ("uri", "pts", "keyframes")
"""Columns of the videos that are not shown; times of all frames are large as Python's numbers."""

_Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DatasetTables:
    """What is known of the data set.

    Attributes:
        videos: Of the schema VIDEOS.
        segments: Of the schema SEGMENTS.
        problems: Of the schema PROBLEMS.
        clips: Of the schema CLIPS.
        classes: Action classes in index order.
        subsets: Videos by subset, those without segments included.
    """

    videos: pa.Table
    segments: pa.Table
    problems: pa.Table
    clips: pa.Table
    classes: tuple[str, ...]
    subsets: Mapping[str, Sequence[str]] = field(default_factory=dict)


def dataset_section(tables: DatasetTables) -> Section:
    """Describe the data set."""
    videos = tables.videos.drop_columns(list(_UNUSED)).to_pylist()
    good = [video for video in videos if video["status"] == "ok"]
    bad = [video for video in videos if video["status"] != "ok"]
    blocks: list[Block] = [
        _overview(good, bad, tables),
        _subset_table(tables, good),
        _class_table(tables),
        _format_table(good),
        _quarantine(bad),
        _problems(tables.problems.to_pylist()),
    ]
    return Section(key="dataset", title="Data set", blocks=tuple(blocks))


def dataset_figure(videos: pa.Table) -> tuple[str, str, str]:
    """The size of the data set as a headline figure."""
    good = videos.select(["status", "duration_seconds"]).filter(pc.field("status") == "ok")
    seconds = float(np.sum(good["duration_seconds"].to_numpy()))
    in_quarantine = f"{len(videos) - len(good):,} in quarantine"
    return ("Video", format_duration(seconds), f"{len(good):,} files, {in_quarantine}")


def _overview(good: list[_Row], bad: list[_Row], tables: DatasetTables) -> Facts:
    clips = Counter(tables.clips["status"].to_pylist())
    variable = sum(video["is_variable_rate"] for video in good)
    return Facts(
        facts=(
            ("Videos", f"{len(good):,} usable, {len(bad):,} in quarantine"),
            ("Length", format_duration(sum(video["duration_seconds"] for video in good))),
            ("Variable frame rate", f"{variable:,} videos"),
            ("Action classes", f"{len(tables.classes):,}"),
            (
                "Segments for training and validation",
                f"{clips['ok']:,} usable, {clips['too_short']:,} shorter than one clip, "
                f"{clips['no_video']:,} without a usable video",
            ),
        )
    )


def _subset_table(tables: DatasetTables, good: list[_Row]) -> Table:
    seconds = {video["video"]: video["duration_seconds"] for video in good}
    rows = []
    segments = tables.segments.to_pylist()
    for subset in sorted({segment["subset"] for segment in segments}):
        own = [segment for segment in segments if segment["subset"] == subset]
        videos = {segment["video"] for segment in own}
        actions = [item["t_end"] - item["t_start"] for item in own if item["kind"] == "action"]
        gaps = [item["t_end"] - item["t_start"] for item in own if item["kind"] == "background"]
        rows.append(
            (
                subset,
                len(videos),
                format_duration(sum(seconds.get(video, 0.0) for video in videos)),
                len(actions),
                format_duration(float(np.median(actions))) if actions else None,
                len(gaps),
                format_duration(float(np.median(gaps))) if gaps else None,
            )
        )
    columns = (
        Column(name="Subset"),
        Column(name="Annotated videos", kind="count"),
        Column(name="Length", kind="number"),
        Column(name="Actions", kind="count"),
        Column(name="median", kind="number"),
        Column(name="Background segments", kind="count"),
        Column(name="median", kind="number"),
    )
    return Table(title="Subsets", columns=columns, rows=tuple(rows))


def _class_table(tables: DatasetTables) -> Table:
    lengths: dict[str, list[float]] = {label: [] for label in tables.classes}
    videos: dict[str, set[str]] = {label: set() for label in tables.classes}
    for segment in tables.segments.to_pylist():
        if segment["kind"] == "action":
            lengths[segment["label"]].append(segment["t_end"] - segment["t_start"])
            videos[segment["label"]].add(segment["video"])
    rows = [
        (
            label,
            len(videos[label]),
            len(values),
            *(float(np.quantile(values, share)) if values else None for share in (0, 0.5, 1)),
        )
        for label, values in lengths.items()
    ]
    columns = (
        Column(name="Class"),
        Column(name="Videos", kind="count"),
        Column(name="Segments", kind="count"),
        Column(name="shortest (s)", kind="number"),
        Column(name="median (s)", kind="number"),
        Column(name="longest (s)", kind="number"),
    )
    return Table(title="Action classes", columns=columns, rows=tuple(rows))


def _format_table(good: list[_Row]) -> Table:
    kinds = Counter(
        (
            _CONTAINERS.get(video["container"], video["container"]),
            video["codec"],
            f"{video['width']}\N{MULTIPLICATION SIGN}{video['height']}",
            _frame_rate(video),
        )
        for video in good
    )
    rows = [(*kind, count) for kind, count in sorted(kinds.items(), key=lambda i: (-i[1], i[0]))]
    columns = (
        Column(name="Container"),
        Column(name="Codec"),
        Column(name="Pixels"),
        Column(name="Frames per second"),
        Column(name="Videos", kind="count"),
    )
    return shortened_table(
        "Video formats", columns, rows, limit=_MAX_ROWS, rest_in="videos.parquet of ingest"
    )


def _frame_rate(video: _Row) -> str:
    if video["is_variable_rate"]:
        return "variable"
    return f"{video['frame_rate_num'] / video['frame_rate_den']:.6g}"


def _quarantine(bad: list[_Row]) -> Block:
    if not bad:
        return Text(text="No video is in quarantine.")
    return shortened_table(
        "Quarantined videos",
        (Column(name="Video"), Column(name="Code"), Column(name="Reason")),
        [(video["video"], video["code"], video["reason"]) for video in bad],
        limit=_MAX_ROWS,
        rest_in="quarantine.parquet of ingest",
    )


def _problems(problems: list[_Row]) -> Block:
    if not problems:
        return Text(text="The annotations gave no cause for complaint.")
    return shortened_table(
        "Problems of the annotations",
        (
            Column(name="Code"),
            Column(name="Video"),
            Column(name="Value"),
            Column(name="What it is"),
        ),
        [(item["code"], item["video"], item["value"], item["message"]) for item in problems],
        limit=_MAX_ROWS,
        rest_in="problems.parquet of annotate",
    )

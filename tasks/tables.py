"""Tables for people, from published artifacts: what the Prefect UI shows of each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.status import quarantined

MAX_ROWS = 500
"""Rows of a table in the UI; the Parquet file has all of them."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the UI: a short name, a line for people, the rows."""

    name: str
    description: str
    rows: Rows


def tables_of(stage: str, artifact: ArtifactRef) -> list[Table]:
    """The tables that show what a stage published; a stage without any gives an empty list."""
    files = artifacts.read_marker(artifact.uri).files
    found: list[Table] = []
    if stage == "ingest" and "videos.parquet" in files:
        found.append(_videos(artifact))
    if stage in ("ingest", "gvf", "export"):
        found += _quarantine(stage, artifact)
    if stage == "annotate" and "segments.parquet" in files:
        found.append(_classes(artifact))
    if stage == "annotate" and "problems.parquet" in files:
        found += _problems(artifact)
    if stage == "pretrain" and "metrics.parquet" in files:
        found.append(_epochs(artifact))
    return [table for table in found if table.rows]


_VIDEO_COLUMNS = (
    *("video", "duration_seconds", "num_frames", "frame_rate_num", "frame_rate_den"),
    *("is_variable_rate", "width", "height", "codec", "container", "size_bytes"),
)


def _videos(artifact: ArtifactRef) -> Table:
    uri = artifact.file("videos.parquet")
    table = schemas.read_table(
        uri, "videos", columns=_VIDEO_COLUMNS, filters=[("status", "=", "ok")]
    )
    rows = [_video_row(row) for row in table.slice(0, MAX_ROWS).to_pylist()]
    return Table(name="videos", description=_counted(table.num_rows, "video", uri), rows=rows)


def _video_row(row: Mapping[str, Any]) -> dict[str, Any]:
    rate = row["frame_rate_num"] / row["frame_rate_den"] if row["frame_rate_den"] else 0.0
    return {
        "video": row["video"],
        "seconds": round(row["duration_seconds"] or 0.0, 2),
        "frames": row["num_frames"],
        "frames/s": f"{rate:.3f}{' (variable)' if row['is_variable_rate'] else ''}",
        "pixels": f"{row['width']}x{row['height']}",
        "codec": f"{row['codec']} in {row['container']}",
        "MB": round((row["size_bytes"] or 0) / 1e6, 2),
    }


def _quarantine(stage: str, artifact: ArtifactRef) -> list[Table]:
    found = quarantined({stage: artifact})
    rows = [{"video": item.video, "code": item.code, "reason": item.reason} for item in found]
    text = _counted(len(rows), "video", artifact.uri, "left out")
    return [Table(name="quarantine", description=text, rows=rows[:MAX_ROWS])]


def _classes(artifact: ArtifactRef) -> Table:
    uri = artifact.file("segments.parquet")
    table = schemas.read_table(uri, "segments", columns=["kind", "subset", "label"])
    rows = table.to_pylist()
    subsets = sorted({row["subset"] for row in rows})
    counts = Counter((row["label"] or f"({row['kind']})", row["subset"]) for row in rows)
    labels = sorted({label for label, _ in counts})
    filled: Rows = [
        {"class": label, **{subset: counts[label, subset] for subset in subsets}}
        for label in labels
    ]
    text = _counted(len(rows), "segment", uri)
    return Table(name="classes", description=text, rows=filled[:MAX_ROWS])


def _problems(artifact: ArtifactRef) -> list[Table]:
    uri = artifact.file("problems.parquet")
    rows = schemas.read_table(uri, "problems").to_pylist()
    text = _counted(len(rows), "problem", uri, "in the annotations")
    return [Table(name="problems", description=text, rows=rows[:MAX_ROWS])]


def _epochs(artifact: ArtifactRef) -> Table:
    uri = artifact.file("metrics.parquet")
    rows = schemas.read_table(uri, "metrics").to_pylist()
    epochs: dict[int, dict[str, Any]] = {}
    for row in rows:  # the last value of an epoch stands for it
        if row["value"] is not None:
            values = epochs.setdefault(row["epoch"], {"epoch": row["epoch"]})
            values[f"{row['phase']} {row['name']}"] = float(f"{row['value']:.5g}")
    filled = [epochs[epoch] for epoch in sorted(epochs)]
    return Table(name="epochs", description=_counted(len(filled), "epoch", uri), rows=filled)


def _counted(number: int, what: str, uri: str, which: str = "") -> str:
    text = f"{number} {what}{'' if number == 1 else 's'} {which}".rstrip()
    more = f", the first {MAX_ROWS} shown" if number > MAX_ROWS else ""
    return f"{text}{more}; all in {storage.redact(uri)}"


def summary_line(summary: Mapping[str, Any]) -> str:
    """The figures of a stage in one line: `clips 94, feature size 512`."""
    plain = {
        key.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else str(value)
        for key, value in summary.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    texts = (f"{name} {value}" for name, value in plain.items())
    return ", ".join(text for text in texts if len(text) <= 40)

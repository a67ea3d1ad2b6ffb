"""Tables of the UI, from published artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks import tables
from tasks.tables import summary_line, tables_of
from tsp_core import artifacts, schemas
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.schemas import TableSchema


def publish(
    folder: Path, stage: str, **contents: tuple[TableSchema, list[dict[str, Any]]]
) -> ArtifactRef:
    files: dict[str, Path | bytes] = {}
    for name, (schema, rows) in contents.items():
        path = folder / f"{name}.parquet"
        schemas.write_table(str(path), schemas.table_from_rows(rows, schema), schema)
        files[path.name] = path
    recipe = Recipe(stage=stage, version=1, config={}, inputs={})
    return artifacts.publish(str(folder / "root"), recipe, files)


VIDEO = {
    "video": "a",
    "status": "ok",
    "duration_seconds": 2.0,
    "num_frames": 60,
    "frame_rate_num": 30000,
    "frame_rate_den": 1001,
    "is_variable_rate": False,
    "width": 320,
    "height": 240,
    "codec": "h264",
    "container": "mp4",
    "size_bytes": 1_500_000,
}
BAD = {"video": "b", "status": "quarantined", "code": "truncated", "reason": "28 of 50 frames"}


def test_ingest_shows_videos_and_quarantine(tmp_path: Path) -> None:
    artifact = publish(
        tmp_path,
        "ingest",
        videos=(schemas.VIDEOS, [VIDEO, BAD]),
        quarantine=(schemas.VIDEOS, [BAD]),
    )
    videos, quarantine = tables_of("ingest", artifact)
    assert videos.rows == [
        {
            "video": "a",
            "seconds": 2.0,
            "frames": 60,
            "frames/s": "29.970",
            "pixels": "320x240",
            "codec": "h264 in mp4",
            "MB": 1.5,
        }
    ]
    assert videos.description.startswith("1 video; all in ")
    assert quarantine.rows == [{"video": "b", "code": "truncated", "reason": "28 of 50 frames"}]


def test_long_tables_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    rows = [{**VIDEO, "video": str(i)} for i in range(5)]
    (table,) = tables_of("ingest", publish(tmp_path, "ingest", videos=(schemas.VIDEOS, rows)))
    assert [row["video"] for row in table.rows] == ["0", "1"]
    assert table.description.startswith("5 videos, the first 2 shown; all in ")


def test_annotate_counts_segments_by_class_and_subset(tmp_path: Path) -> None:
    segments = [
        {"kind": "action", "label": "jump", "subset": "training"},
        {"kind": "action", "label": "jump", "subset": "training"},
        {"kind": "action", "label": "jump", "subset": "validation"},
        {"kind": "background", "label": None, "subset": "validation"},
    ]
    problems = [{"code": "reversed", "file": "a.json", "message": "…"}]
    artifact = publish(
        tmp_path,
        "annotate",
        segments=(schemas.SEGMENTS, segments),
        problems=(schemas.PROBLEMS, problems),
    )
    classes, found = tables_of("annotate", artifact)
    assert classes.rows == [
        {"class": "(background)", "training": 0, "validation": 1},
        {"class": "jump", "training": 2, "validation": 1},
    ]
    assert found.rows[0]["code"] == "reversed"


def test_pretrain_shows_the_last_value_of_each_epoch(tmp_path: Path) -> None:
    rows = [
        {"epoch": 0, "iteration": 1, "phase": "train", "name": "loss", "value": 2.0},
        {"epoch": 0, "iteration": 2, "phase": "train", "name": "loss", "value": 1.234567},
        {"epoch": 0, "iteration": 2, "phase": "valid", "name": "accuracy", "value": 0.5},
        {"epoch": 1, "iteration": 4, "phase": "train", "name": "loss", "value": 1.0},
    ]
    (table,) = tables_of("pretrain", publish(tmp_path, "pretrain", metrics=(schemas.METRICS, rows)))
    assert table.rows == [
        {"epoch": 0, "train loss": 1.2346, "valid accuracy": 0.5},
        {"epoch": 1, "train loss": 1.0},
    ]


def test_stages_without_tables(tmp_path: Path) -> None:
    assert tables_of("index", publish(tmp_path, "index")) == []
    assert tables_of("ingest", publish(tmp_path, "ingest")) == []


def test_summaries_are_one_line() -> None:
    summary = {
        "videos": 3,
        "balanced_accuracy": 0.123456,
        "classes": {"a": 1},
        "imported": False,
        "name": "a",
        "x": "y" * 300,
    }
    assert summary_line(summary) == "videos 3, balanced accuracy 0.1235, name a"

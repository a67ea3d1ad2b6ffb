from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import ClipConfig, Config, IndexConfig
from tsp_core.errors import AnnotationError
from tsp_core.schemas import (
    CLIPS,
    SEGMENTS,
    VIDEOS,
    TableSchema,
    read_table,
    table_from_rows,
    write_table,
)
from tsp_core.stages import index
from tsp_core.stages.base import StageReport

CLIP = ClipConfig(length=8, frame_rate=10.0)  # 0.8 s

VIDEO_ROWS = [
    {"video": "a", "status": "ok", "duration_seconds": 10.0},
    {"video": "b", "status": "quarantined", "code": "truncated", "duration_seconds": 10.0},
    {"video": "c", "status": "ok", "duration_seconds": 0.5},
]


def row(video: str, start: float, end: float, kind: str = "action", **more: Any) -> dict[str, Any]:
    """A row of SEGMENTS."""
    is_action = kind == "action"
    values = {
        "video": video,
        "subset": "training",
        "kind": kind,
        "label": "run" if is_action else None,
        "label_index": 0 if is_action else -1,
        "region": {"action": 0, "background": 1, "ambiguous": -1}[kind],
        "t_start": start,
        "t_end": end,
    }
    return values | more


def publish(root: Path, stage: str, name: str, schema: TableSchema, rows: Any) -> ArtifactRef:
    path = root / f"{name}.parquet"
    write_table(str(path), table_from_rows(rows, schema), schema)
    recipe = Recipe(stage=stage, version=1, config={"rows": repr(rows)}, inputs={})
    return artifacts.publish(str(root), recipe, {path.name: path})


def run(
    root: Path, rows: list[dict[str, Any]], subsets: tuple[str, ...] | None = None
) -> tuple[StageReport, list[dict[str, Any]]]:
    inputs = {
        "ingest": publish(root, "ingest", "videos", VIDEOS, VIDEO_ROWS),
        "annotate": publish(root, "annotate", "segments", SEGMENTS, rows),
    }
    config = Config(root=str(root), clip=CLIP, index=IndexConfig(subsets=subsets))
    report = index.finish(config, inputs, index.plan(config, inputs))
    assert index.plan(config, inputs).existing == report.artifact
    table = read_table(report.artifact.file("clips.parquet"), "clips")
    assert table.schema.names == CLIPS.fields.names
    return report, table.to_pylist()


def test_clips_start_where_they_fit_into_the_segment(tmp_path: Path) -> None:
    report, rows = run(
        tmp_path,
        [
            row("a", 1.0, 4.0),
            row("a", 4.0, 4.75, label="jump", label_index=1),
            row("a", 8.0, 12.0, "background"),
            row("a", -3.0, 0.8),
            row("a", 11.0, 14.0),
            row("a", 2.0, 3.0, "ambiguous"),
            row("b", 1.0, 4.0),
            row("missing", 1.0, 4.0, "background"),
        ],
    )
    columns = ("status", "region", "t_start", "t_end", "first_start", "last_start")
    assert [tuple(item[name] for name in columns) for item in rows] == [
        ("ok", 0, 1.0, 4.0, 1.0, pytest.approx(3.2)),
        ("too_short", 0, 4.0, 4.75, None, None),
        ("ok", 1, 8.0, 10.0, 8.0, pytest.approx(9.2)),
        ("ok", 0, 0.0, 0.8, 0.0, 0.0),
        ("too_short", 0, 10.0, 10.0, None, None),
        ("no_video", 0, 1.0, 4.0, None, None),
        ("no_video", 1, 1.0, 4.0, None, None),
    ]
    assert report.summary == {
        "segments": 7,
        "subsets": {"training": {"ok": 3, "too_short": 2, "no_video": 2}},
        "too_short": {"training": {"jump": 1, "run": 1}},
        "no_video": {"training": {"No action": 1, "run": 1}},
    }


@pytest.mark.parametrize("length", [1, 8, 16])
def test_too_short_is_the_released_criterion(length: int) -> None:
    clip = ClipConfig(length=length, frame_rate=15.0)
    generator = np.random.default_rng(length)
    frames = generator.integers(length - 1, length + 2, 500)
    starts = np.round(generator.uniform(0, 50, 500), 1)
    segments = [
        row("a", start, start + count / 15) for start, count in zip(starts, frames, strict=True)
    ]
    videos = table_from_rows([{"video": "a", "status": "ok", "duration_seconds": 99.0}], VIDEOS)
    clips = index.clip_table(table_from_rows(segments, SEGMENTS), videos, clip).to_pylist()
    for item in clips:
        fits = (item["t_end"] - item["t_start"]) * 15.0 >= length
        assert item["status"] == ("ok" if fits else "too_short")
        if fits:
            assert item["t_start"] == item["first_start"] <= item["last_start"]
            assert item["last_start"] + clip.seconds <= item["t_end"] + 1e-9


def test_without_any_usable_video_every_row_says_so() -> None:
    videos = table_from_rows(VIDEO_ROWS[1:2], VIDEOS)
    clips = index.clip_table(table_from_rows([row("b", 1, 4)], SEGMENTS), videos, CLIP)
    assert clips["status"].to_pylist() == ["no_video"]


def test_subsets_are_selected(tmp_path: Path) -> None:
    rows = [row("a", 1.0, 4.0), row("a", 4.0, 6.0, subset="validation")]
    report, clips = run(tmp_path, rows, ("validation",))
    assert [item["subset"] for item in clips] == ["validation"]
    assert list(report.summary["subsets"]) == ["validation"]


@pytest.mark.parametrize(
    ("rows", "subsets", "message"),
    [
        ([row("a", 1, 4)], ("test",), "index.subsets: 'test' is not annotated; .* are training"),
        ([row("a", 1, 4, "ambiguous")], ("training",), "'training' is not annotated; .* none"),
        ([row("a", 1, 4, "ambiguous")], None, "there is no segment at all"),
        (
            [row("c", 0, 1), row("b", 1, 2)],
            None,
            "no segment of the subset 'training' can hold a clip: 1 are shorter than one and 1 ",
        ),
        (
            [row("a", 1, 4), row("a", 1, 1.2, subset="validation")],
            ("training", "validation"),
            "no segment of the subset 'validation' can hold a clip",
        ),
    ],
)
def test_subsets_without_a_clip_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], subsets: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        run(tmp_path, rows, subsets)


def test_a_subset_that_nobody_asked_for_may_be_empty(tmp_path: Path) -> None:
    report, _ = run(tmp_path, [row("a", 1, 4), row("b", 1, 4, subset="test")])
    assert report.summary["subsets"]["test"] == {"ok": 0, "too_short": 0, "no_video": 1}


def test_only_the_extent_of_the_clip_is_in_the_recipe(tmp_path: Path) -> None:
    inputs = {
        "ingest": publish(tmp_path, "ingest", "videos", VIDEOS, VIDEO_ROWS),
        "annotate": publish(tmp_path, "annotate", "segments", SEGMENTS, [row("a", 1, 4)]),
    }

    def fingerprint(**clip: Any) -> str:
        config = Config(root=str(tmp_path), clip=ClipConfig(**clip))
        return index.plan(config, inputs).recipe.fingerprint

    assert fingerprint() == fingerprint(crop_size=64)
    assert len({fingerprint(), fingerprint(length=8), fingerprint(frame_rate=10)}) == 3


def test_large_indices_are_made_at_once() -> None:
    num_videos, num_segments = 20_000, 160_000
    names = [f"video_{number:05d}" for number in range(num_videos)]
    videos = pa.table(
        {"video": names, "status": ["ok"] * num_videos, "duration_seconds": [60.0] * num_videos}
    )
    starts = np.linspace(0.0, 58.0, num_segments)
    columns: dict[str, Any] = {
        "video": [names[number % num_videos] for number in range(num_segments)],
        "subset": ["training"] * num_segments,
        "label_index": np.zeros(num_segments, np.int32),
        "region": np.zeros(num_segments, np.int8),
        "t_start": starts,
        "t_end": starts + 2.0,
    }
    segments = pa.table(columns)
    begin = time.perf_counter()
    clips = index.clip_table(segments, videos, ClipConfig())
    assert time.perf_counter() - begin < 2.0
    assert clips.num_rows == num_segments

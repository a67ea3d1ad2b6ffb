"""Bad and odd files through the stages: each comes to what it must, and costs itself alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.media_corpus import Case, real_outcomes, write_corpus
from tests.reliability.media_corpus import cases as all_cases
from tests.reliability.media_oracle import judge
from tsp_core import pipeline, storage
from tsp_core.config import Config
from tsp_core.schemas import read_table
from tsp_core.stages import export

CLIP = {"length": 8, "frame_rate": 10, "resize_height": 20, "resize_width": 24, "crop_size": 16}


def config_of(root: Path, videos: str | list[str], **runtime: Any) -> Config:
    return Config.model_validate(
        {
            "root": str(root),
            "clip": CLIP,
            "encoder": {"name": "r2plus1d_tiny", "weights": "random:0"},
            "ingest": {"videos": videos, "max_bad_fraction": 1.0},
            "export": {"checkpoint": "random:0", "stride": 8, "formats": ["npy"]},
            "runtime": {"device": "cpu", **runtime},
        }
    )


def ingested(config: Config) -> dict[str, dict[str, Any]]:
    """Run ingest; returns its rows by file name."""
    report = pipeline.run_stage(config, "ingest", {})
    rows = read_table(report.artifact.file("videos.parquet"), "videos").to_pylist()
    return {Path(row["uri"]).name: row for row in rows}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "videos"


@pytest.fixture(scope="module")
def cases(corpus: Path) -> dict[str, Case]:
    return write_corpus(corpus)


@pytest.fixture(scope="module")
def rows(cases: dict[str, Case], corpus: Path) -> dict[str, dict[str, Any]]:
    return ingested(config_of(corpus.parent / "root", str(corpus)))


def test_every_file_is_accounted_for(cases: dict[str, Case], rows: dict[str, Any]) -> None:
    assert set(rows) == {*cases, "inside.mp4"}


@pytest.mark.parametrize("name", [case.name for case in all_cases()])
def test_each_file_comes_to_what_it_must(
    cases: dict[str, Case], rows: dict[str, Any], corpus: Path, name: str
) -> None:
    case = cases[name]
    numbers = list(case.numbers) if case.numbers is not None else None
    outcome = judge(corpus / name, rows[name], numbers=numbers)
    assert outcome.partition(",")[0] in case.outcomes, rows[name]["reason"]


def test_what_is_good_is_exported_and_short_videos_are_marked(
    cases: dict[str, Case], rows: dict[str, Any], corpus: Path
) -> None:
    config = config_of(corpus.parent / "root", str(corpus))
    inputs = pipeline.published(config, upto="annotate")
    plan = export.plan(config, inputs)
    for shard in plan.shards:
        export.run_shard(config, inputs, shard)
    report = export.finish(config, inputs, plan)
    manifest = json.loads(storage.read_bytes(report.artifact.file("manifest.json")))
    good = {row["video"]: row for row in rows.values() if row["status"] == "ok"}
    assert set(manifest["videos"]) == set(good)
    bad = {row["video"]: row["code"] for row in rows.values() if row["status"] != "ok"}
    assert {name: why["code"] for name, why in manifest["quarantined"].items()} == bad
    short = {name for name, facts in manifest["videos"].items() if facts["is_padded"]}
    assert {name for name, row in good.items() if row["duration_seconds"] < 0.8} == short
    assert all(manifest["videos"][name]["rows"] == 1 for name in short)
    assert "one frame" in short
    assert "name new\nline" in short


@pytest.mark.shared
def test_the_real_files_come_to_what_they_must(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "clips"
    expected = real_outcomes()
    found = ingested(config_of(tmp_path, [str(folder / name) for name in sorted(expected)]))
    outcomes = {name: row["code"] or row["num_frames"] for name, row in found.items()}
    assert outcomes == expected


def test_files_that_are_listed_cannot_name_what_is_elsewhere(tmp_path: Path, corpus: Path) -> None:
    corpus.mkdir(exist_ok=True)
    bad = ["../evil", "/etc/passwd", "a/../../b", "..", ".", " ", "C:\\x", "nul\0l", "x" * 300]
    lines = ["uri,video", *(f'{tmp_path}/none.mp4,"{name}"' for name in bad if "\0" not in name)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    report = pipeline.run_stage(
        config_of(tmp_path / "root", str(tmp_path / "list.csv")), "ingest", {}
    )
    table = read_table(report.artifact.file("videos.parquet"), "videos").to_pylist()
    assert {row["code"] for row in table} <= {"bad_name", "missing", "duplicate_name"}
    assert not any(row["status"] == "ok" for row in table)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import AnnotateConfig, Config, IngestConfig
from tsp_core.errors import AnnotationError, ConfigError
from tsp_core.schemas import VIDEOS, read_table, table_from_rows, write_table
from tsp_core.stages import annotate
from tsp_core.stages.base import StageReport

ROWS = (
    "video,label,t-start,t-end,subset\n"
    "a,run,1,2,training\n"
    "a,jump,4,11.5,training\n"
    "b,run,0,1,training\n"
    "c,run,0,1,validation\n"
    "gone,run,0,1,validation\n"
)


def ingested(root: Path, durations: dict[str, float | None]) -> ArtifactRef:
    """Publish an ingest artifact; None stands for a video in quarantine."""
    rows = [
        {"video": name, "status": "quarantined", "code": "truncated"}
        if seconds is None
        else {"video": name, "status": "ok", "duration_seconds": seconds}
        for name, seconds in durations.items()
    ]
    path = root / "videos.parquet"
    write_table(str(path), table_from_rows(rows, VIDEOS), VIDEOS)
    recipe = Recipe(stage="ingest", version=1, config={"videos": durations}, inputs={})
    return artifacts.publish(str(root), recipe, {path.name: path})


def run(config: Config, ingest: ArtifactRef) -> StageReport:
    inputs = {"ingest": ingest}
    return annotate.finish(config, inputs, annotate.plan(config, inputs))


@pytest.fixture
def ingest(tmp_path: Path) -> ArtifactRef:
    return ingested(tmp_path, {"v_a": 10.0, "b": None, "c": 1.5, "unlabelled": 3.0})


def configured(root: Path, text: str = ROWS, **fields: Any) -> Config:
    path = root / "labels.csv"
    path.write_text(text)
    fields = {"format": "csv", "annotations": str(path), "min_background_clips": 1.0} | fields
    return Config(root=str(root), annotate=AnnotateConfig(**fields))


def test_classes_that_look_the_same_are_told_once(
    tmp_path: Path, ingest: ArtifactRef, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, ROWS.replace("jump", "Run"))
    annotate.read(config)
    assert "annotate: the classes 'Run' and 'run' differ in case" in caplog.text
    caplog.clear()
    run(config, ingest)
    assert caplog.text == ""


def test_annotations_of_other_videos_are_refused_before_any_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    videos = IngestConfig(videos=str(tmp_path / "videos"))
    config = configured(tmp_path).model_copy(update={"ingest": videos})
    annotated = annotate.read(config)
    (tmp_path / "videos" / "x.mp4").write_bytes(b"not decoded")
    with pytest.raises(AnnotationError, match=r"none of the 4 annotated videos .such as 'a'. is"):
        annotate.check_names(config, annotated)
    (tmp_path / "videos" / "v_a.mp4").write_bytes(b"not decoded")
    annotate.check_names(config, annotated)


def test_publishes_segments_classes_subsets_and_problems(
    tmp_path: Path, ingest: ArtifactRef
) -> None:
    report = run(configured(tmp_path), ingest)
    segments = read_table(report.artifact.file("segments.parquet"), "segments").to_pylist()
    columns = ("video", "subset", "kind", "label_index", "region", "t_start", "t_end")
    assert [tuple(row[name] for name in columns) for row in segments] == [
        ("v_a", "training", "action", 1, 0, 1.0, 2.0),
        ("v_a", "training", "action", 0, 0, 4.0, 11.5),
        ("v_a", "training", "background", -1, 1, 2.0, 4.0),
        ("b", "training", "action", 1, 0, 0.0, 1.0),
        ("c", "validation", "action", 1, 0, 0.0, 1.0),
        ("gone", "validation", "action", 1, 0, 0.0, 1.0),
    ]
    assert json.loads(storage.read_bytes(report.artifact.file("classes.json"))) == ["jump", "run"]
    assert json.loads(storage.read_bytes(report.artifact.file("subsets.json"))) == {
        "training": ["v_a"],
        "validation": ["c"],
    }
    problems = read_table(report.artifact.file("problems.parquet"), "problems").to_pylist()
    assert [(row["code"], row["video"], row["file"]) for row in problems] == [
        ("beyond_end", "a", "labels.csv"),
        ("quarantined_video", "b", "labels.csv"),
        ("missing_video", "gone", "labels.csv"),
    ]
    assert report.summary == {
        "videos_annotated": 4,
        "videos_usable": {"training": 1, "validation": 1},
        "segments": {
            "training": {"action": 3, "background": 1, "ambiguous": 0},
            "validation": {"action": 2, "background": 0, "ambiguous": 0},
        },
        "classes": 2,
        "problems": {"beyond_end": 1, "quarantined_video": 1, "missing_video": 1},
    }


def test_a_rerun_finds_the_artifact_and_a_fresh_one_has_the_same_bytes(
    tmp_path: Path, ingest: ArtifactRef
) -> None:
    config = configured(tmp_path)
    report = run(config, ingest)
    assert annotate.plan(config, {"ingest": ingest}).existing == report.artifact
    storage.delete(report.artifact.uri, recursive=True)
    assert annotate.plan(config, {"ingest": ingest}).existing is None
    assert run(config, ingest).artifact == report.artifact


def test_what_changes_the_content_changes_the_fingerprint(
    tmp_path: Path, ingest: ArtifactRef
) -> None:
    def fingerprint(config: Config, source: ArtifactRef = ingest) -> str:
        return annotate.plan(config, {"ingest": source}).recipe.fingerprint

    first = fingerprint(configured(tmp_path))
    moved = tmp_path / "moved.csv"
    moved.write_text(ROWS)
    assert fingerprint(configured(tmp_path, annotations=str(moved))) == first
    others = [
        fingerprint(configured(tmp_path, text=ROWS.replace("11.5", "9.5"))),
        fingerprint(configured(tmp_path, official_background=True)),
        fingerprint(configured(tmp_path, classes=("run", "jump"))),
        fingerprint(configured(tmp_path), ingested(tmp_path, {"v_a": 20.0})),
    ]
    assert len({first, *others}) == 5


def test_classes_of_a_folder_are_part_of_the_fingerprint(
    tmp_path: Path, ingest: ArtifactRef
) -> None:
    folder = tmp_path / "thumos"
    folder.mkdir()
    file = folder / "Run_val.txt"
    file.write_text("c 0 1\n")
    config = configured(tmp_path, annotations=str(folder), format="thumos14")
    first = annotate.plan(config, {"ingest": ingest}).recipe.fingerprint
    file.rename(folder / "Jump_val.txt")
    assert annotate.plan(config, {"ingest": ingest}).recipe.fingerprint != first


def test_a_mapping_names_the_subsets(tmp_path: Path, ingest: ArtifactRef) -> None:
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text("video,label,t-start,t-end\na,run,1,2\n")
    valid.write_text("video,label,t-start,t-end\nc,jump,0,1\n")
    mapping = {"validation": str(valid), "training": str(train)}
    report = run(configured(tmp_path, annotations=mapping), ingest)
    assert report.summary["videos_usable"] == {"training": 1, "validation": 1}


def test_configured_classes_give_the_order(tmp_path: Path, ingest: ArtifactRef) -> None:
    report = run(configured(tmp_path, classes=("run", "walk", "jump")), ingest)
    table = read_table(report.artifact.file("segments.parquet"), "segments").to_pydict()
    assert table["label_index"][:2] == [0, 2]
    assert json.loads(storage.read_bytes(report.artifact.file("classes.json")))[1] == "walk"


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (ROWS, {"classes": ("run",)}, r"labels.csv: line 3: video 'a': 'jump': not one of"),
        (ROWS + "a,run,3,2,training\n", {}, r"line 7: video 'a': \[3.0, 2.0\]: the end lies"),
        (ROWS + "a,run,-1,2,training\n", {}, r"line 7: video 'a': \[-1.0, 2.0\]: the start lies"),
        (ROWS + "a,run,nan,2,training\n", {}, r"line 7: .* times must be finite"),
        (ROWS, {"on_missing_video": "fail"}, "video 'gone': no such video was ingested"),
        (ROWS, {"video_prefix": "x-"}, "none of the 4 annotated videos"),
        ("video,label,t-start,t-end\na,run,1,2\n", {}, "video 'a': the file names no subset"),
        (
            ROWS + "d,run,1,2,\n",
            {},
            r"labels.csv: line 7: video 'd': the column or key 'subset' is empty, .* fill it in",
        ),
    ],
)
def test_bad_annotations_are_refused(
    tmp_path: Path, ingest: ArtifactRef, text: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        run(configured(tmp_path, text, **fields), ingest)


def test_bad_segments_can_be_reported_instead(tmp_path: Path, ingest: ArtifactRef) -> None:
    text = ROWS + "a,run,3,2,training\n"
    report = run(configured(tmp_path, text, on_bad_segment="report"), ingest)
    assert report.summary["problems"]["reversed"] == 1
    assert report.summary["segments"]["training"]["action"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS + "d,run,1,2,\n", "line 7: video 'd': .* 'subset' is empty"),
        (ROWS + "a,run,3,2,training\n", "line 7: .* the end lies before the start"),
        ("video,label\na,run\n", "no column 't-start'"),
    ],
)
def test_what_is_wrong_whatever_the_videos_are_needs_none_of_them(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        annotate.read(configured(tmp_path, text))
    fields = {"on_bad_segment": "report"}
    assert annotate.read(configured(tmp_path, ROWS + "a,run,3,2,training\n", **fields))


def test_the_video_names_the_place_where_it_has_no_segments(
    tmp_path: Path, ingest: ArtifactRef
) -> None:
    database = {"c": {"subset": "training"}, "v_a": {"annotations": []}}
    text = json.dumps({"database": database})
    with pytest.raises(AnnotationError, match=r"labels.csv: video 'v_a': the column or key"):
        run(configured(tmp_path, text, format="activitynet"), ingest)


@pytest.mark.parametrize("annotations", [None, "", {}])
def test_annotations_must_be_configured(
    tmp_path: Path, ingest: ArtifactRef, annotations: Any
) -> None:
    with pytest.raises(ConfigError, match=r"annotate.annotations: not set"):
        annotate.plan(configured(tmp_path, annotations=annotations), {"ingest": ingest})


def test_a_missing_file_is_named_when_planning(tmp_path: Path, ingest: ArtifactRef) -> None:
    config = configured(tmp_path, annotations=str(tmp_path / "absent.csv"))
    with pytest.raises(AnnotationError, match=r"^annotate\.annotations: '.*absent\.csv': no su"):
        annotate.plan(config, {"ingest": ingest})

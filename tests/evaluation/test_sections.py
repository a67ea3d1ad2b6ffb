"""Sections say what the tables hold, and nothing of where on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.evaluation.samples import CLASSES, evidence
from tsp_core.config import Config
from tsp_core.config.io import parse_config
from tsp_core.evaluation.blocks import Charts, Facts, Section, Table, Text
from tsp_core.evaluation.detection.instances import Instances, no_detections
from tsp_core.evaluation.row_logits import Source
from tsp_core.evaluation.sections.colours import class_colours
from tsp_core.evaluation.sections.configuration import shown_configuration
from tsp_core.evaluation.sections.dataset import DatasetTables, dataset_figure, dataset_section
from tsp_core.evaluation.sections.features import features_figure, features_section
from tsp_core.evaluation.sections.localization import localization_section
from tsp_core.evaluation.sections.training import training_section
from tsp_core.evaluation.sections.videos import videos_section
from tsp_core.evaluation.stories import tell_stories
from tsp_core.schemas import CLIPS, METRICS, PROBLEMS, SEGMENTS, VIDEOS, table_from_rows

VIDEO = {
    "status": "ok",
    "container": "mov,mp4,m4a,3gp,3g2,mj2",
    "codec": "h264",
    "width": 64,
    "height": 48,
    "duration_seconds": 60.0,
    "frame_rate_num": 30000,
    "frame_rate_den": 1001,
    "is_variable_rate": False,
}


def _segment(video: str, kind: str, start: float, end: float) -> dict[str, Any]:
    label = "walk" if kind == "action" else None
    return {
        "video": video,
        "subset": "training",
        "kind": kind,
        "label": label,
        "label_index": 0 if label else -1,
        "t_start": start,
        "t_end": end,
    }


@pytest.fixture
def tables() -> DatasetTables:
    videos = [
        {**VIDEO, "video": "a"},
        {**VIDEO, "video": "b", "is_variable_rate": True},
        {"video": "c", "status": "quarantined", "code": "truncated", "reason": "ends at 3 s"},
    ]
    segments = [
        _segment("a", "action", 0.0, 2.0),
        _segment("a", "background", 2.0, 60.0),
        _segment("b", "action", 1.0, 5.0),
    ]
    problems = [{"code": "missing_video", "video": "d", "value": "", "message": "no file"}]
    clips = [
        {"video": "a", "status": "ok"},
        {"video": "a", "status": "ok"},
        {"video": "b", "status": "too_short"},
    ]
    return DatasetTables(
        videos=table_from_rows(videos, VIDEOS),
        segments=table_from_rows(segments, SEGMENTS),
        problems=table_from_rows(problems, PROBLEMS),
        clips=table_from_rows(clips, CLIPS),
        classes=("walk", "never"),
    )


def _table(section: Section, title: str) -> Table:
    found = [b for b in section.blocks if isinstance(b, Table) and b.title.startswith(title)]
    assert len(found) == 1, title
    return found[0]


def _facts(section: Section) -> dict[str, str]:
    return {name: value for b in section.blocks if isinstance(b, Facts) for name, value in b.facts}


def test_no_colour_stands_for_two_classes() -> None:
    told = tell_stories(evidence(), protocol="thumos14")
    assert told is not None
    assert class_colours(told, len(CLASSES)) == {0: "s0", 1: "s1", 2: "s2"}
    story = told.videos[0]
    rare, common = np.arange(20), np.repeat(np.arange(5, 13), 3)
    labels = np.concatenate([rare, common])
    times = np.arange(len(labels), dtype=float)
    actions = Instances(
        videos=np.full(len(labels), story.sequence.video, dtype=object),
        label_indices=labels,
        t_start=times,
        t_end=times + 1,
    )
    many = replace(told, videos=(replace(story, actions=actions, detections=no_detections()),))
    colours = class_colours(many, 20)
    own = {index: colour for index, colour in colours.items() if colour != "none"}
    assert list(own) == list(range(5, 13))
    assert len(set(own.values())) == 8
    names = [f"class {index}" for index in range(20)]
    section = videos_section(
        many, classes=names, thumbnails={}, localizer="Detector", actionness_from=None
    )
    (charts,) = (block for block in section.blocks if isinstance(block, Charts))
    assert [name for name, _ in charts.keys] == [*names[5:13], "other classes"]
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert any("ranked by the F1" in text for text in texts)


@pytest.mark.parametrize(
    ("classes_from", "actionness_from", "note"),
    [
        ("head", "head", ""),
        (
            "head",
            "probe",
            "Own heads: the checkpoint has no region head, so the actionness is that of the linear "
            "region probe.",
        ),
        (
            "probe",
            "head",
            "Own heads: the checkpoint has no action head, so the class probability is that of the "
            "linear action probe.",
        ),
        ("only class", "head", ""),
    ],
)
def test_whose_scores_the_own_heads_have_is_said(
    classes_from: Source, actionness_from: Source, note: str
) -> None:
    found = evidence()
    heads = replace(
        found.localization.localized["probes"],
        classes_from=classes_from,
        actionness_from=actionness_from,
    )
    localization = replace(found.localization, localized={"heads": heads})
    completed = replace(found, localization=localization, scores={"heads": found.scores["probes"]})
    section = localization_section(
        completed, protocol="thumos14", subset="validation", classes=CLASSES
    )
    assert _table(section, "mAP, tIoU 0.3").note == note


def test_the_data_set_at_a_glance(tables: DatasetTables) -> None:
    section = dataset_section(tables)
    facts = _facts(section)
    assert facts["Videos"] == "2 usable, 1 in quarantine"
    assert facts["Length"] == "2.0 min"
    assert facts["Variable frame rate"] == "1 videos"
    assert facts["Segments for training and validation"].startswith("2 usable, 1 shorter than")
    assert _table(section, "Subsets").rows == (("training", 2, "2.0 min", 2, "3.0 s", 1, "58.0 s"),)
    assert _table(section, "Action classes").rows == (
        ("walk", 2, 2, 2.0, 3.0, 4.0),
        ("never", 0, 0, None, None, None),
    )
    assert _table(section, "Quarantined").rows == (("c", "truncated", "ends at 3 s"),)
    assert _table(section, "Problems").rows == (("missing_video", "d", "", "no file"),)
    formats = _table(section, "Video formats").rows
    assert ("mp4, mov", "h264", "64\N{MULTIPLICATION SIGN}48", "29.97", 1) in formats
    assert ("mp4, mov", "h264", "64\N{MULTIPLICATION SIGN}48", "variable", 1) in formats
    assert dataset_figure(tables.videos) == ("Video", "2.0 min", "2 files, 1 in quarantine")


def test_a_clean_data_set_says_so(tables: DatasetTables) -> None:
    clean = DatasetTables(
        videos=tables.videos.slice(0, 2),
        segments=tables.segments,
        problems=tables.problems.slice(0, 0),
        clips=tables.clips,
        classes=tables.classes,
    )
    texts = [block.text for block in dataset_section(clean).blocks if isinstance(block, Text)]
    assert len(texts) == 2


def _manifest(num_videos: int) -> dict[str, Any]:
    return {
        "encoder": "r2plus1d_tiny",
        "precision": "fp32",
        "checkpoint": "random:0",
        "feature_size": 128,
        "clip": {"length": 8, "frame_rate": 10.0},
        "stride": 4,
        "row_time": {"step_seconds": 0.4, "first_center_seconds": 0.4},
        "videos": {
            f"v{index}": {
                "rows": 10 + index,
                "is_padded": index == 0,
                "duration_seconds": 5.0,
                "num_frames": 50,
            }
            for index in range(num_videos)
        },
        "quarantined": {"bad": {"code": "truncated", "reason": "ends at 3 s"}},
    }


def test_features_are_counted_and_files_summed_up() -> None:
    files = {"features.h5": 1_000_000, "npy/v0.npy": 500_000, "npy/v1.npy": 500_000}
    section = features_section(_manifest(2), files)
    assert _table(section, "Files").rows == (
        ("features.h5", 1, "1.0 MB"),
        ("npy/*.npy", 2, "1.0 MB"),
    )
    assert _table(section, "Rows per video: 10 to 11").rows[1] == ("v1", 11, 5.0, 50)
    assert _table(section, "Videos without features").rows == (("bad", "truncated", "ends at 3 s"),)
    assert _facts(section)["Padded videos"] == "1"
    assert features_figure(_manifest(2))[1:] == ("21", "rows of 128 numbers, 2 videos")


def test_many_files_in_many_folders_are_summed_up_quickly() -> None:
    files = {f"npy/video_{index:06d}.npy": 10 for index in range(20_000)}
    assert _table(features_section(_manifest(1), files), "Files").rows == (
        ("npy/*.npy", 20_000, "200.0 kB"),
    )


def test_no_features_at_all_is_no_error() -> None:
    assert _table(features_section(_manifest(0), {}), "Rows per video: none").rows == ()


def _metrics(*rows: tuple[int, str, str, float]) -> pa.Table:
    names = ("epoch", "phase", "name", "value")
    return table_from_rows([dict(zip(names, row, strict=True)) for row in rows], METRICS)


def test_epochs_show_what_the_heads_have() -> None:
    metrics = _metrics(
        (0, "train", "loss", 2.0),
        (0, "valid", "loss", 1.5),
        (0, "valid", "accuracy_region", 0.5),
        (0, "valid", "accuracy_mean", 0.5),
    )
    section = training_section(metrics, best_epoch=0)
    table = _table(section, "Epochs")
    assert [column.name for column in table.columns] == [
        "Epoch",
        "Training loss",
        "Validation loss",
        "Region accuracy",
        "Mean accuracy",
    ]
    assert table.rows == ((1, 2.0, 1.5, 0.5, 0.5),), "epochs are counted from 1 for people"
    assert isinstance(section.blocks[0], Text)
    assert section.blocks[0].text.startswith("Epoch 1 is the best")


def _config(folder: Path, **runtime: Any) -> Config:
    extension = folder / "mine.py"
    folder.mkdir(exist_ok=True)
    extension.write_text("")
    values = {
        "extensions": [str(extension)],
        "study": {"variants": {"b": {"ingest": {"videos": [str(folder / "b.mp4")]}}}},
        "root": str(folder / "store"),
        "encoder": {"weights": str(folder / "secret" / "weights.pth")},
        "ingest": {"videos": [str(folder / "a.mp4"), "s3://bucket/b.mp4"]},
        "annotate": {"annotations": {"training": str(folder / "train.csv")}},
        "runtime": runtime,
    }
    return parse_config(values, source="test")


def test_the_shown_configuration_knows_no_place_and_no_secret(tmp_path: Path) -> None:
    shown = shown_configuration(_config(tmp_path, device="cpu"))
    assert shown["ingest"]["videos"] == ["a.mp4", "s3://bucket/b.mp4"]
    assert shown["annotate"]["annotations"] == {"training": "train.csv"}
    assert shown["encoder"]["weights"] == "weights.pth"
    assert shown["extensions"] == ["mine.py"]
    assert shown["study"]["variants"] == {"b": {"ingest": {"videos": ["b.mp4"]}}}
    assert not {"root", "runtime"} & shown.keys()
    assert "batch_size" not in shown["evaluate"]
    assert shown == shown_configuration(_config(tmp_path / "elsewhere", device="auto"))

"""`tsp init`: what is found of a dataset, and the configuration that is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tsp_core.annotations.detect import detect_format, find_annotations
from tsp_core.config.io import load_config
from tsp_core.errors import AnnotationError, ConfigError
from tsp_core.starter import look, render

PLAIN = "video,label,t-start,t-end,subset\na,jump,0,2,training\na,run,4,5,training\nb,run,1,3,val\n"
RELEASED = (
    "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
    "temporal-region-label\na,0,2,jump,9,a.mp4,30,270,Action\na,2,9,,9,a.mp4,30,270,No action\n"
)


def activitynet(gap_seconds: float = 20.0) -> str:
    second = 2.0 + gap_seconds
    actions = [
        {"label": "jump", "segment": [0.0, 2.0]},
        {"label": "run", "segment": [second, second + 4]},
    ]
    database = {
        "a": {"subset": "training", "annotations": actions},
        "b": {"subset": "validation", "annotations": actions[:1]},
        "gone": {"subset": "validation", "annotations": []},
    }
    return json.dumps({"database": database})


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "my data" / "videos"
    folder.mkdir(parents=True)
    for name in ("a.mp4", "b.mkv", "notes.txt"):
        (folder / name).write_bytes(b"not decoded")
    return folder


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.json", activitynet(), "activitynet"),
        ("x.csv", PLAIN, "csv"),
        ("x.CSV", RELEASED, "tsp-csv"),
        ("folder/Run_val.txt", "a 0.1 0.9\n", "thumos14"),
    ],
)
def test_formats_are_told_apart(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    target = path.parent if "/" in name else path
    assert detect_format(str(target)) == expected
    assert find_annotations(str(tmp_path)) == [str(target)]


def test_an_unknown_kind_of_annotations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text("<a/>")
    with pytest.raises(
        AnnotationError, match=r"x\.xml: cannot tell its format; known are Activity"
    ):
        detect_format(str(tmp_path / "x.xml"))


def test_the_configuration_loads_and_says_what_was_found(videos: Path) -> None:
    (videos.parent / "labels.json").write_text(activitynet())
    found = look(str(videos))
    assert (found.num_videos, found.num_matched, found.format) == (2, 2, "activitynet")
    assert found.num_per_subset == {"training": 1, "validation": 2}
    assert found.classes == ["jump", "run"]
    text = render(found, name="mine", root="./out", folder=str(videos.parent))
    path = videos.parent / "tsp.yaml"
    path.write_text(text)
    config = load_config(str(path))
    assert config.ingest.videos == str(videos)
    assert config.annotate.annotations == str(videos.parent / "labels.json")
    assert config.root == str(videos.parent / "out")
    assert (config.pretrain.train_subset, config.evaluate.subset) == ("training", "validation")
    assert "3 videos are annotated; 1 of them have no file" in text
    assert "Half of the actions are shorter than 2.0 s" in text
    assert str(videos.parent) not in text  # the folder can be moved


@pytest.mark.parametrize(("gap_seconds", "expected"), [(20.0, 5), (1.0, 1)])
def test_short_gaps_between_actions_count_as_background(
    videos: Path, gap_seconds: float, expected: int
) -> None:
    (videos.parent / "labels.json").write_text(activitynet(gap_seconds))
    text = render(look(str(videos)), name="x", root="r", folder="/")
    assert yaml.safe_load(text)["annotate"]["min_background_clips"] == expected


def test_a_file_per_subset(videos: Path, tmp_path: Path) -> None:
    rows = PLAIN.splitlines()
    for name, row in (("train.csv", rows[1]), ("valid.csv", rows[3])):
        (tmp_path / name).write_text(f"{rows[0]}\n{row}\n".replace(",subset", ",note"))
    sources = [f"training={tmp_path}/train.csv", f"validation={tmp_path}/valid.csv"]
    found = look(str(videos), sources)
    values = yaml.safe_load(render(found, name="x", root="r", folder=str(tmp_path)))
    assert values["annotate"]["annotations"] == {
        "training": "./train.csv",
        "validation": "./valid.csv",
    }
    assert found.num_per_subset == {"training": 1, "validation": 1}


def test_annotations_without_subsets_are_pointed_out(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text("video,label,start,end\na,jump,0,2\n")
    text = render(look(str(videos)), name="x", root="r", folder="/")
    assert "The annotations name no subset, which training needs" in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"--annotations: no \.json, \.csv or THUMOS14 folder in"),
        ({"a.csv": PLAIN, "b.csv": PLAIN}, r"several files may be meant .*: a\.csv, b\.csv; give"),
    ],
)
def test_no_or_several_annotations_are_refused(
    videos: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (videos.parent / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        look(str(videos))


@pytest.mark.parametrize("given", [["a.json", "b.json"], ["training=", "x=y"]])
def test_several_annotations_need_their_subsets(videos: Path, given: list[str]) -> None:
    with pytest.raises(ConfigError, match="give one path, or several as SUBSET=PATH"):
        look(str(videos), given)


def test_annotations_of_other_videos_are_refused(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN.replace("a,", "x,").replace("b,", "y,"))
    with pytest.raises(AnnotationError, match="none of the 2 annotated videos"):
        look(str(videos))

"""Annotations that are not there, or not of the format that the configuration names."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tsp_core.annotations.places import check_there
from tsp_core.annotations.registry import content_digest, read_annotations
from tsp_core.errors import AnnotationError

ROWS = "video,label,t-start,t-end\na,run,0,1\n"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lables.csv", r"did you mean '.*/labels\.csv'\?"),
        ("labels.json", r"did you mean '.*/labels\.csv'\?"),
        ("xyz", r"correct the path; beside it are labels\.csv$"),
        ("none/xyz.csv", r"nor is there the folder '.*/none'; correct the path"),
    ],
)
def test_the_key_the_path_and_what_may_be_meant_are_named(
    tmp_path: Path, name: str, advice: str
) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    uri = str(tmp_path / name)
    message = rf"^annotate\.annotations: '{uri}': no such file or folder; {advice}"
    for use in (read_annotations, content_digest):
        with pytest.raises(AnnotationError, match=message):
            use(uri, "csv")
    with pytest.raises(
        AnnotationError, match=r"^annotate\.annotations, subset 'val': '/.*: no such"
    ):
        read_annotations({"train": str(tmp_path / "labels.csv"), "val": uri}, "csv")


def test_a_long_path_is_written_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / ("x" * 100) / "labels.csv")
    with pytest.raises(AnnotationError, match=f"'{uri}'"):
        check_there(uri)


def test_a_folder_with_nothing_like_it_and_a_store_give_no_names(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no such file or folder; correct the path$"):
        check_there(str(tmp_path / "labels.csv"))
    fsspec.filesystem("memory").pipe_file("/places/labels.csv", ROWS.encode())
    with pytest.raises(
        AnnotationError, match=r"'memory://places/lables\.csv': .*correct the path$"
    ):
        check_there("memory://places/lables.csv")
    check_there("memory://places/labels.csv")


@pytest.mark.parametrize(
    ("name", "format_name", "message"),
    [
        (
            "labels.csv",
            "activitynet",
            "not valid JSON.*; it is read as 'activitynet' .annotate.form",
        ),
        ("labels.csv", "thumos14", "name ends in .csv: set that to 'csv' or 'tsp-csv', or name"),
        (
            "labels.json",
            "csv",
            "its name ends in .json: set that to 'activitynet', or name another",
        ),
        (
            ".",
            "csv",
            "it is a folder; 'csv' .annotate.format, --format. is read from a file: name it",
        ),
        ("labels.csv", "tsp-csv", "no column 'video-name'.*[^e]$"),
    ],
)
def test_a_file_of_another_format_is_told(
    tmp_path: Path, name: str, format_name: str, message: str
) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(AnnotationError, match=message):
        read_annotations(str(tmp_path / name), format_name)

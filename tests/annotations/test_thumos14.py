from __future__ import annotations

from pathlib import Path

import pytest

from tsp_core.annotations.registry import read_annotations
from tsp_core.annotations.thumos14 import class_files, read
from tsp_core.errors import AnnotationError


def write(folder: Path, **files: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder)


def test_gathers_the_rows_of_a_video_from_all_class_files(tmp_path: Path) -> None:
    uri = write(
        tmp_path,
        Ambiguous_val="v2  0.0 1.0\n",
        CliffDiving_val="v1  3.0 4.0\n",
        Diving_val="v1  3.0 4.0\nv2 5.5 6.5\n\nv1  1.0 2.0\n",
        readme="nothing to read here",
    )
    videos = {video.name: video for video in read(uri, None)}
    assert {name: video.subset for name, video in videos.items()} == {
        "v1": "validation",
        "v2": "validation",
    }
    rows = [(s.label, s.start_seconds, s.end_seconds) for s in videos["v1"].segments]
    assert rows == [("CliffDiving", 3.0, 4.0), ("Diving", 3.0, 4.0), ("Diving", 1.0, 2.0)]
    assert [(s.kind, s.label) for s in videos["v2"].segments] == [
        ("ambiguous", None),
        ("action", "Diving"),
    ]
    assert videos["v1"].segments[2].place == "line 4"


def test_the_subset_comes_from_the_ending_or_from_a_mapping(tmp_path: Path) -> None:
    valid = write(tmp_path / "valid", Diving_val="v1 1 2\n")
    test = write(tmp_path / "test" / "annotation", Diving_test="t1 1 2\n")
    assert read(str(tmp_path / "test"), None)[0].subset == "test"
    videos = read_annotations({"training": valid, "validation": test}, "thumos14")
    assert {video.name: video.subset for video in videos} == {"v1": "training", "t1": "validation"}


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    hidden = {"._Diving_val": "\0\5\26"}
    uri = write(tmp_path, Diving_val="v1 1 2\n", class_list="7 Diving\n", **hidden)
    write(tmp_path / "notes", read_me="see the paper")
    assert class_files(uri) == [f"{uri}/Diving_val.txt"]
    assert [video.name for video in read(uri, "training")] == ["v1"]


def test_a_mapping_tells_the_subset_of_unknown_endings(tmp_path: Path) -> None:
    uri = write(tmp_path, Diving_dev="v1 1 2\n")
    assert read(uri, "training")[0].subset == "training"


def test_reads_from_an_object_store(tmp_path: Path) -> None:
    from tsp_core import storage

    storage.write_bytes("memory://thumos/val/Diving_val.txt", b"v1 1 2\n")
    assert [video.name for video in read("memory://thumos/val", None)] == ["v1"]


@pytest.mark.parametrize(
    ("files", "subset", "message"),
    [
        ({"readme": "x"}, None, "no class files"),
        ({"Diving_val": ""}, None, "Diving_val.txt: the file is empty"),
        ({"Diving_val": "v1 1 2\nv1 3\n"}, None, "Diving_val.txt: line 2: 'v1 3': expected three"),
        ({"Diving_val": "v1 1 2 3"}, None, "line 1: .* expected three fields"),
        ({"Diving_val": "v1 one 2"}, None, "line 1: start 'one': expected a number"),
        ({"Diving_val": "v1 1 2_0"}, None, "line 1: end '2_0': expected a number"),
        ({"Diving_dev": "v1 1 2"}, None, "the ending _dev tells no subset"),
        (
            {"Diving_val": "v1 1 2", "Shotput_test": "v1 1 2"},
            None,
            "Shotput_test.txt: line 1: video 'v1' is in the subset 'test' here and in 'validation'",
        ),
        (
            {"Diving_val": "v1 1 2", "Shotput_test": "v2 1 2"},
            "training",
            "given as subset 'training' but holds several: test, val",
        ),
    ],
)
def test_refuses_what_it_cannot_read(
    tmp_path: Path, files: dict[str, str], subset: str | None, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(write(tmp_path, **files), subset)


def test_refuses_several_folders_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a", Diving_val="v1 1 2")
    write(tmp_path / "b", Diving_test="v2 1 2")
    with pytest.raises(AnnotationError, match="class files in several folders"):
        read(str(tmp_path), None)


def test_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="absent: no class files"):
        read(str(tmp_path / "absent"), None)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tsp_core.annotations.activitynet import read
from tsp_core.errors import AnnotationError


def entry(*segments: Any, subset: str | None = "training") -> dict[str, Any]:
    annotations = [{"label": "jump", "segment": segment} for segment in segments]
    return {"annotations": annotations} | ({"subset": subset} if subset else {})


def write(folder: Path, document: Any) -> str:
    path = folder / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_reads_videos_in_the_order_of_the_file_and_ignores_what_is_extra(tmp_path: Path) -> None:
    document = {
        "version": "1.3",
        "taxonomy": [{"nodeName": "jump"}],
        "database": {
            "z": entry([3, 4.5], [1.0, 2]) | {"duration": 9.0, "url": "x", "fps": 10},
            "a": entry(subset="testing"),
        },
    }
    first, second = read(write(tmp_path, document), None)
    assert (first.name, first.subset, second.name, second.subset) == (
        "z",
        "training",
        "a",
        "testing",
    )
    assert [(s.start_seconds, s.end_seconds) for s in first.segments] == [(3.0, 4.5), (1.0, 2.0)]
    assert {(s.kind, s.label) for s in first.segments} == {("action", "jump")}
    assert first.segments[1].place == "database['z'].annotations[1]"
    assert second.segments == ()


def test_blanks_around_labels_and_subsets_are_dropped(tmp_path: Path) -> None:
    annotations = [{"label": " run\t", "segment": [0, 1]}]
    document = {"database": {"a": {"subset": "training ", "annotations": annotations}}}
    (video,) = read(write(tmp_path, document), "training")
    assert (video.subset, video.segments[0].label) == ("training", "run")


def test_a_test_subset_may_lack_annotations_and_a_mapping_may_name_the_subset(
    tmp_path: Path,
) -> None:
    uri = write(tmp_path, {"database": {"a": {"subset": "testing"}, "b": entry(subset=None)}})
    assert [video.subset for video in read(uri, None)] == ["testing", None]
    uri = write(tmp_path, {"database": {"b": entry([0, 1], subset=None)}})
    assert read(uri, "validation")[0].subset == "validation"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "labels.json: the file is empty"),
        ("  \n", "the file is empty"),
        ('{"database": ', "line 1 column 14: not valid JSON"),
        ("[" * 100_000, "not usable JSON"),
        ("1" * 5_000, "not usable JSON"),
        ([], "top level: expected .* got a list without it"),
        ({"videos": {}}, "expected .* got a dict without it"),
        ({"database": []}, "expected"),
        ({"database": {}}, "database: holds no videos"),
        ({"database": {"": entry()}}, "database: video name ''"),
        ({"database": {"a": 3}}, r"database\['a'\]: expected an object .* 3"),
        ({"database": {"a": {"subset": 3}}}, r"database\['a'\]: subset 3: expected a text"),
        ({"database": {"a": {"annotations": {}}}}, r"\['a'\].annotations: expected a list"),
        ({"database": {"a": {"annotations": [7]}}}, r"annotations\[0\]: expected an object"),
        ({"database": {"a": entry(None)}}, r"annotations\[0\].segment: expected \[start, end\]"),
        ({"database": {"a": entry([1, 2], [1])}}, r"annotations\[1\].segment: expected"),
        ({"database": {"a": entry(["1", 2])}}, "start '1': expected a number of seconds"),
        ({"database": {"a": entry([1, True])}}, "end True: expected a number of seconds"),
        ({"database": {"a": entry([1, 10**400])}}, "end 1000.*: expected a number of seconds"),
        (
            {"database": {"a": {"annotations": [{"segment": [1, 2]}]}}},
            "label None: expected a text that is not empty",
        ),
        (
            {"database": {"a": {"annotations": [{"label": "\ud800", "segment": [1, 2]}]}}},
            "half a surrogate pair",
        ),
        ('{"database": {"a": {}, "b": {}, "a": {}}}', "'a': the key appears twice"),
    ],
)
def test_refuses_other_shapes_naming_the_place(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(write(tmp_path, document), None)


def test_refuses_a_subset_other_than_the_configured(tmp_path: Path) -> None:
    uri = write(tmp_path, {"database": {"a": entry([0, 1])}})
    with pytest.raises(AnnotationError, match=r"'training', but the configuration .* 'validation'"):
        read(uri, "validation")


def test_refuses_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(b'{"database": "\xff"}')
    with pytest.raises(AnnotationError, match=r"labels.json: byte 14: not UTF-8 text"):
        read(str(path), None)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"absent.json: cannot read: no such file"):
        read(str(tmp_path / "absent.json"), None)

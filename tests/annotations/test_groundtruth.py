from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tsp_core.annotations.groundtruth import GroundTruthReport, write_ground_truth
from tsp_core.annotations.tsp_csv import GROUND_TRUTH_COLUMNS
from tsp_core.errors import AnnotationError, ConfigError
from tsp_core.schemas import read_table

METADATA = "filename,video-duration,fps,video-frames\n"
UNSTABLY_SORTED = {"video_validation_0000176", "video_validation_0000184"}

Row = tuple[Any, ...]


def load(path: Path) -> Counter[Row]:
    """Rows with times in units of 1e-9 s."""

    def nano(text: str) -> int:
        return round(float(text) * 1e9)

    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == list(GROUND_TRUTH_COLUMNS)
        return Counter(
            (
                row["video-name"],
                nano(row["t-start"]),
                nano(row["t-end"]),
                row["action-label"],
                nano(row["video-duration"]),
                row["filename"],
                float(row["fps"]),
                int(row["video-frames"]),
                row["temporal-region-label"],
            )
            for row in reader
        )


def videos_with_overlap(rows: Counter[Row]) -> set[str]:
    """Videos in which a background row overlaps an action."""
    actions: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row[-1] == "Action":
            actions[row[0]].append(row)
    return {
        row[0]
        for row in rows
        if row[-1] == "No action"
        and any(min(row[2], other[2]) - max(row[1], other[1]) > 1 for other in actions[row[0]])
    }


def differing(rows: Counter[Row], others: Counter[Row]) -> set[str]:
    return {row[0] for row in (rows - others) + (others - rows)}


@pytest.fixture(params=["thumos14", "activitynet"])
def dataset(request: pytest.FixtureRequest, shared: Path) -> dict[str, Any]:
    annotations, split, clips = {
        "thumos14": ("thumos14/annotations_val", "thumos14_valid", 1.0),
        "activitynet": ("activitynet_v1-3_validation.json", "activitynet_v1-3_valid", 5.0),
    }[request.param]
    return {
        "released": load(shared / "reference" / f"{split}_tsp_groundtruth.csv"),
        "arguments": {
            "annotations": str(shared / "data" / "annotations" / annotations),
            "format": request.param,
            "videos": str(shared / "reference" / f"{split}_metadata.csv"),
            "subset": "validation",
            "min_background_clips": clips,
        },
    }


@pytest.mark.shared
def test_official_rows_are_the_released_ones(dataset: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    report = write_ground_truth(**dataset["arguments"], out=str(out), official_background=True)
    rows, released = load(out), dataset["released"]
    annotated = {row[0] for row in rows}
    released = Counter({row: n for row, n in released.items() if row[0] in annotated})
    assert differing(rows, released) <= UNSTABLY_SORTED
    assert (
        report.num_videos
        == len(annotated)
        == {"thumos14": 200, "activitynet": 4728}[dataset["arguments"]["format"]]
    )
    assert report.num_actions + report.num_background == rows.total()


@pytest.mark.shared
def test_default_rows_differ_only_where_released_background_overlaps_an_action(
    dataset: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    write_ground_truth(**dataset["arguments"], out=str(out))
    rows = load(out)
    annotated = {row[0] for row in rows}
    released = Counter({row: n for row, n in dataset["released"].items() if row[0] in annotated})
    assert differing(rows, released) <= videos_with_overlap(released) | UNSTABLY_SORTED
    assert videos_with_overlap(rows) == set()


def write(folder: Path, **files: str) -> dict[str, Any]:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return {
        "annotations": str(folder / "labels.csv"),
        "videos": str(folder / "metadata.csv"),
        "format": "csv",
        "out": str(folder / "out.csv"),
        "min_background_clips": 1.0,
    }


LABELS = (
    "video,label,t-start,t-end,subset\n"
    "a,run,2,3,train\n"
    "b,jump,-0.5,70.0,train\n"
    "gone,run,1,2,train\n"
    "c,run,0,1,valid\n"
)
VIDEOS = METADATA + "clips/v_a.mp4,4.5,30,135\nb.avi,60,29.97,1798\nc.mp4,1.0,15,15\nd.mp4,9,1,9\n"


def run(folder: Path, **changes: Any) -> GroundTruthReport:
    return write_ground_truth(**{**write(folder, labels=LABELS, metadata=VIDEOS), **changes})


def test_rows_are_the_segments_as_annotated(tmp_path: Path) -> None:
    report = run(tmp_path, subset="train")
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == [
        "a,2.0,3.0,run,4.5,clips/v_a.mp4,30.0,135,Action",
        "a,0.0,2.0,,4.5,clips/v_a.mp4,30.0,135,No action",
        "a,3.0,4.5,,4.5,clips/v_a.mp4,30.0,135,No action",
        "b,-0.5,70.0,jump,60.0,b.avi,29.97,1798,Action",
    ]
    assert (report.num_videos, report.num_actions, report.num_background) == (2, 2, 2)
    assert report.classes == ("jump", "run")
    assert report.num_problems_by_code == {"beyond_end": 1, "missing_video": 1}


def test_its_own_csv_reads_back_as_the_same_rows(tmp_path: Path) -> None:
    run(tmp_path)
    first = load(tmp_path / "out.csv")
    again = tmp_path / "again.csv"
    run(tmp_path, annotations=str(tmp_path / "out.csv"), format="tsp-csv", out=str(again))
    assert load(again) == first


def test_parquet_has_the_table_of_segments(tmp_path: Path) -> None:
    out = str(tmp_path / "out.parquet")
    run(tmp_path, out=out)
    table = read_table(out, "segments").to_pydict()
    assert table["video"] == ["v_a", "v_a", "v_a", "b", "c"]
    assert table["label_index"] == [1, -1, -1, 0, 1]
    assert table["kind"] == ["action", "background", "background", "action", "action"]


def test_a_subset_selects_or_names_videos(tmp_path: Path) -> None:
    assert run(tmp_path).num_videos == 3
    assert run(tmp_path, subset="valid").num_videos == 1
    unnamed = "video,label,t-start,t-end\na,run,2,3\n"
    arguments = write(tmp_path, labels=unnamed, metadata=VIDEOS)
    assert write_ground_truth(**arguments, subset="any").num_videos == 1
    with pytest.raises(AnnotationError, match=r"subset 'test': no such subset .* train, valid"):
        run(tmp_path, subset="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "rows.txt"}, r"out 'rows.txt': the name must end in .csv or .parquet"),
        ({"min_background_clips": -1.0}, "min_background_clips -1.0: must be 0 or more"),
        ({"min_background_clips": float("nan")}, "min_background_clips nan"),
        ({"format": "json"}, "no annotation format 'json'"),
    ],
)
def test_impossible_arguments_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **changes)


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_what_it_reads_is_not_written_over(tmp_path: Path, name: str) -> None:
    out = run(tmp_path)
    assert Path(out.out).exists()
    before = (tmp_path / name).read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / name)
    for target in (tmp_path / name, tmp_path / "link.csv"):
        with pytest.raises(ConfigError, match="is what the segments are made of; name another"):
            run(tmp_path, out=str(target))
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("", r"metadata.csv: the file is empty"),
        ("filename,fps\na.mp4,30\n", "header: no column 'video-duration'"),
        (METADATA + "a.mp4,nan,30,9\n", "line 2: video-duration nan: expected a number above 0"),
        (METADATA + "a.mp4,9,0,9\n", r"line 2: fps 0.0: expected a number above 0"),
        (METADATA + "a.mp4,9,30,many\n", "line 2: video-frames 'many': expected a number"),
        (METADATA + "a.mp4,9,30,9\nb/a.avi,9,30,9\n", "line 3: the video 'a' appears twice"),
    ],
)
def test_wrong_metadata_are_refused(tmp_path: Path, metadata: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        write_ground_truth(**write(tmp_path, labels=LABELS, metadata=metadata))


def test_rows_that_are_there_twice_are_kept_and_told(tmp_path: Path) -> None:
    arguments = write(tmp_path, labels=LABELS + "a,run,2,3,train\n", metadata=VIDEOS)
    report = write_ground_truth(**arguments)
    assert report.num_problems_by_code["duplicate"] == 1
    (told,) = (item for item in report.problems if item.code == "duplicate")
    assert told.message.startswith("line 6: video 'a': the same as line 2; both are kept")
    assert report.num_actions == 4
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows.count("a,2.0,3.0,run,4.5,clips/v_a.mp4,30.0,135,Action") == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "annotations",
            r"^annotations: '.*/label\.csv': no such file or folder; did you mean '.*/la",
        ),
        ("videos", r"^videos: '.*/label\.csv': no such file or folder; did you mean"),
    ],
)
def test_what_is_not_there_is_named_with_its_argument(
    tmp_path: Path, argument: str, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        run(tmp_path, **{argument: str(tmp_path / "label.csv")})


def test_reversed_segments_are_refused_or_left_out(tmp_path: Path) -> None:
    arguments = write(tmp_path, labels=LABELS + "a,run,4,3.5,train\n", metadata=VIDEOS)
    with pytest.raises(AnnotationError, match=r"labels.csv: line 6: video 'a': \[4.0, 3.5\]"):
        write_ground_truth(**arguments)
    assert write_ground_truth(**arguments, on_bad_segment="report").num_actions == 3


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    reversed_only = "video,label,t-start,t-end\na,run,3,2\n"
    arguments = write(tmp_path, labels=reversed_only, metadata=VIDEOS)
    with pytest.raises(AnnotationError, match=r"metadata.csv: none of its annotated videos has a"):
        write_ground_truth(**arguments, on_bad_segment="report")

from __future__ import annotations

from pathlib import Path

import pytest

from tsp_core.annotations import plain_csv, tsp_csv
from tsp_core.annotations.csv_rows import header_names
from tsp_core.annotations.registry import FORMATS, read_annotations
from tsp_core.errors import AnnotationError, ConfigError

HEADER = "video,label,t-start,t-end\n"
RELEASED = "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"


def write(folder: Path, text: str, name: str = "rows.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def test_plain_rows_of_a_video_need_not_be_together(tmp_path: Path) -> None:
    uri = write(tmp_path, HEADER + "b,run,1,2.5\na, jump ,0,1\r\n\nb,jump,4,5\n")
    first, second = plain_csv.read(uri, "training")
    assert (first.name, second.name, first.subset) == ("b", "a", "training")
    assert [(s.label, s.start_seconds, s.end_seconds, s.place) for s in first.segments] == [
        ("run", 1.0, 2.5, "line 2"),
        ("jump", 4.0, 5.0, "line 5"),
    ]
    assert second.segments[0].label == "jump"


@pytest.mark.parametrize(
    "header",
    [
        "Video_Name,Action Label,START,end_seconds,split",
        "\ufeffvideo-id,class,begin,end,subset",
    ],
)
def test_plain_headers_have_aliases(tmp_path: Path, header: str) -> None:
    (video,) = plain_csv.read(write(tmp_path, f'{header}\na,"run, fast",1,2,valid\n'), None)
    assert (video.name, video.subset, video.segments[0].label) == ("a", "valid", "run, fast")


def test_columns_may_come_in_any_order_among_others(tmp_path: Path) -> None:
    (video,) = plain_csv.read(
        write(tmp_path, "note,t-end,t-start,label,video\nx,2,1,run,a\n"), None
    )
    assert (video.subset, video.segments[0].start_seconds) == (None, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.csv: the file is empty"),
        (HEADER, "holds no rows below its header"),
        (
            "video|label|t-start|t-end\na|b|1|2\n",
            r"header: no column 'video' .accepted: video, .*\|t-end'; separate the columns",
        ),
        (
            "video;label;t-start;t-end\na;b;0,5;2\n",
            "line 2: t-start '0,5': expected a number of seconds with a decimal point",
        ),
        ("video,label,t-start\na,b,1\n", "header: no column 't-end'"),
        ("video,label,t-start,start,t-end\na,b,1,1,2\n", "several columns for 't-start'"),
        (HEADER + "a,b,1\n", "line 2: 3 cells, but the header has 4"),
        (HEADER + "a,b,1,2,3\n", "line 2: 5 cells, but the header has 4"),
        (HEADER + "a,b,0,5,1,5\n", "line 2: 6 cells, .*: fix the row; a cell that holds a comma"),
        (HEADER + ",b,1,2\n", "line 2: video '': expected a text"),
        (HEADER + "a,,1,2\n", "line 2: label '': expected a text"),
        (HEADER + "a,b,x,2\n", "line 2: t-start 'x': expected a number"),
        (HEADER + 'a,"b,1,2\n', "line 2: not valid CSV"),
        (HEADER + "a," + "b" * 200_000 + ",1,2\n", "not valid CSV"),
    ],
)
def test_plain_refuses_naming_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        plain_csv.read(write(tmp_path, text), None)


@pytest.mark.parametrize("sign", [";", "\t"])
def test_the_header_tells_what_separates_columns(tmp_path: Path, sign: str) -> None:
    rows = [["video", "label", "start", "end"], ["a", "run, fast", "1", "2.5"]]
    uri = write(tmp_path, "\n" + "".join(f"{sign.join(row)}\n" for row in rows))
    (video,) = plain_csv.read(uri, None)
    (action,) = video.segments
    assert (action.label, action.end_seconds) == ("run, fast", 2.5)
    assert header_names(uri) == rows[0]


def test_plain_refuses_a_video_in_two_subsets(tmp_path: Path) -> None:
    rows = "video,label,t-start,t-end,subset\na,b,1,2,train\na,b,3,4,valid\n"
    with pytest.raises(AnnotationError, match="line 3: video 'a' is in the subset 'valid' here"):
        plain_csv.read(write(tmp_path, rows), None)
    for empty, line, other in (("a,b,1,2,train", 2, 3), ("a,b,3,4,valid", 3, 2)):
        cells = empty.rpartition(",")[0]
        message = f"line {line}: video 'a': the column 'subset' is empty, but .* in line {other}"
        with pytest.raises(AnnotationError, match=message):
            plain_csv.read(write(tmp_path, rows.replace(empty, f"{cells},")), None)
    with pytest.raises(AnnotationError, match="line 2: subset 'train', but the configuration"):
        plain_csv.read(write(tmp_path, rows), "valid")


def test_released_rows_keep_their_background(tmp_path: Path) -> None:
    rows = (
        f"{RELEASED}temporal-region-label\n"
        "a,0.5,2.5,run,9.0,v_a.mp4,30.0,270,Action\n"
        "a,2.5,9.0,,9.0,v_a.mp4,30.0,270,No action\n"
    )
    (video,) = tsp_csv.read(write(tmp_path, rows), "validation")
    assert [(s.kind, s.label, s.start_seconds, s.end_seconds) for s in video.segments] == [
        ("action", "run", 0.5, 2.5),
        ("background", None, 2.5, 9.0),
    ]
    assert FORMATS["tsp-csv"].has_background


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("a,0,1,run,9,a.mp4,30,270,action", "label 'action': expected 'Action' or 'No action'"),
        ("a,0,1,run,9,a.mp4,30,270,No action", "line 2: action-label 'run' in a row of"),
        ("a,0,1,,9,a.mp4,30,270,Action", "line 2: action-label '': expected a text"),
        ("a,0,,run,9,a.mp4,30,270,Action", "line 2: t-end '': expected a number"),
    ],
)
def test_released_refuses_naming_the_line(tmp_path: Path, cells: str, message: str) -> None:
    uri = write(tmp_path, f"{RELEASED}temporal-region-label\n{cells}\n")
    with pytest.raises(AnnotationError, match=message):
        tsp_csv.read(uri, None)


def test_released_refuses_another_header(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="header: no column 'video-name'"):
        tsp_csv.read(write(tmp_path, HEADER + "a,b,1,2\n"), None)


def test_a_video_in_two_files_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path, HEADER + "a,b,1,2\n", "first.csv")
    second = write(tmp_path, HEADER + "a,b,1,2\n", "second.csv")
    with pytest.raises(AnnotationError, match=r"video 'a' of .* 'valid' .* 'train' too"):
        read_annotations({"valid": second, "train": first}, "csv")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="no annotation format 'xml'; known are activitynet, thumos14"
    ):
        read_annotations("labels.xml", "xml")

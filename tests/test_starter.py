"""`tsp init`: what is found of a dataset, and the configuration that is written."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from tests.synthetic import VideoSpec, write_video
from tsp_core.annotations.detect import detect_format, find_annotations
from tsp_core.config.io import load_config
from tsp_core.errors import AnnotationError, ConfigError
from tsp_core.starter import look, render, to_mend

PLAIN = "video,label,t-start,t-end,subset\na,jump,0,2,training\na,run,4,5,training\nb,run,1,3,val\n"
RELEASED = (
    "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
    "temporal-region-label\na,0,2,jump,9,a.mp4,30,270,Action\na,2,9,,9,a.mp4,30,270,No action\n"
)


class CountedFiles(MemoryFileSystem):
    """Notes the folders that are listed, one call each, as a disk's or an object store's are."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    listed: ClassVar[list[str]] = []
    find = AbstractFileSystem.find

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.listed.append(self._strip_protocol(path))
        return super().ls(path, detail=detail, **kwargs)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("counted://", "memory://"))


fsspec.register_implementation("counted", CountedFiles, clobber=True)


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


@pytest.mark.parametrize(
    ("gap_seconds", "clips", "protocol"), [(20.0, 5, "activitynet"), (1.0, 1, "thumos14")]
)
def test_short_gaps_between_actions_are_treated_as_on_thumos14(
    videos: Path, gap_seconds: float, clips: int, protocol: str
) -> None:
    (videos.parent / "labels.json").write_text(activitynet(gap_seconds))
    text = render(look(str(videos)), name="x", root="r", folder="/")
    written = yaml.safe_load(text)
    assert written["annotate"]["min_background_clips"] == clips
    assert written["evaluate"]["protocol"] == protocol


@pytest.mark.parametrize("name", ["2024", "1.5", "1e3", "0x1F", "null", "true", "No", "1_0", "a-b"])
def test_a_name_is_read_back_as_it_was_given(videos: Path, name: str) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN)
    path = videos.parent / "tsp.yaml"
    path.write_text(render(look(str(videos)), name=name, root="./out", folder=str(videos.parent)))
    assert load_config(str(path)).name == name


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("my data", "my-data"),
        ("_x", "x"),
        ("a/b\n", "a-b"),
        ("??", "dataset"),
        ("a" * 101, "a" * 100),
    ],
)
def test_a_name_that_a_run_refuses_is_not_written(videos: Path, name: str, other: str) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN)
    found = look(str(videos))
    with pytest.raises(ConfigError) as caught:
        render(found, name=name, root="./out", folder=str(videos.parent))
    assert str(caught.value).startswith(f"--name {name!r}: a name is of letters, digits")
    assert str(caught.value).endswith(f"give another, as in --name {other}")
    render(found, name=other, root="./out", folder=str(videos.parent))


def test_a_file_per_subset(videos: Path, tmp_path: Path) -> None:
    rows = PLAIN.splitlines()
    for name, row in (("train.csv", rows[1]), ("valid.csv", rows[3])):
        (tmp_path / name).write_text(f"{rows[0]}\n{row}\n".replace(",subset", ",note"))
    sources = [f"training={tmp_path}/train.csv", f"validation={tmp_path}/valid.csv"]
    found = look(str(videos), sources)
    text = render(found, name="x", root="r", folder=str(tmp_path))
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    values = yaml.safe_load(text)
    assert values["annotate"]["annotations"] == {
        "training": "./train.csv",
        "validation": "./valid.csv",
    }
    assert found.num_per_subset == {"training": 1, "validation": 1}


def test_annotations_without_subsets_are_pointed_out(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text("video,label,start,end\na,jump,0,2\n")
    text = render(look(str(videos)), name="x", root="r", folder="/")
    assert "The annotations name no subset, which training needs" in text


def test_what_a_run_would_stop_by_is_told(videos: Path) -> None:
    labels = videos.parent / "labels.csv"
    labels.write_text(PLAIN + "b,run,5,4,val\nb,run,-1,4,val\n")
    found = look(str(videos))
    told = " ".join(to_mend(found))
    assert (
        "2 segments are wrong, and a run stops by them. The first: 'labels.csv': video 'b': "
        in told
    )
    assert "[5.0, 4.0]: line 5: the end lies before the start; swap them" in told
    assert "on_bad_segment: report" in told
    text = render(found, name="x", root="r", folder="/")
    assert "  # 2 segments are wrong" in text
    assert "on_bad_segment" not in yaml.safe_load(text)["annotate"]
    labels.write_text(PLAIN)
    assert to_mend(look(str(videos))) == []


@pytest.mark.parametrize(("factor", "what"), [(1000, "milliseconds"), (15, "frames")])
def test_times_that_are_no_seconds_are_told(tmp_path: Path, factor: int, what: str) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        spec = VideoSpec(num_frames=60, rate=Fraction(15), width=32, height=32)
        write_video(tmp_path / "videos" / f"video{number}.mp4", spec)
    header = "video,label,t-start,t-end,subset\n"

    def write(times: float) -> None:
        rows = [f"video{n},run,{times},{3 * times},training\n" for n in range(3)]
        (tmp_path / "labels.csv").write_text(header + "".join(rows))

    write(1)
    assert to_mend(look(str(tmp_path / "videos"))) == []
    write(factor)
    found = look(str(tmp_path / "videos"))
    first, second = to_mend(found)
    assert first == "By the headers of some videos, a run stops by times that are no seconds:"
    told = f"labels.csv: line 2: video 'video0': [{factor}.0, {3 * factor}.0], but the video lasts"
    assert told in second
    assert "are the times in seconds? Divide milliseconds by 1000, and frames by" in second
    assert f"# {first}" in render(found, name="x", root="r", folder="/")


def test_names_that_are_nearly_those_of_files_and_classes_alike_are_told(videos: Path) -> None:
    rows = "B,Jump,0,1,val\nc.mp4,jump,0,1,val\nb.mkv,run,0,1,VAL\na.mp4,run,0,1,val\n"
    (videos.parent / "labels.csv").write_text(PLAIN.replace("b,run,1,3,val\n", rows))
    names, classes, subsets = to_mend(look(str(videos)))
    assert names == (
        "4 annotated videos have no file; 2 of them are names of videos when they are written "
        "without their ending '.mkv'."
    )
    assert classes.startswith("Look at the classes: the classes 'Jump' and 'jump' differ in case")
    assert subsets.startswith("Look at the subsets: the subsets 'VAL' and 'val' differ in case")


def test_annotations_that_are_not_there_are_named_with_the_option(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN)
    with pytest.raises(
        AnnotationError,
        match=r"^--annotations: '.*/lables\.csv': no such file or folder; did you mean '.*/labels",
    ):
        look(str(videos), [str(videos.parent / "lables.csv")])
    with pytest.raises(AnnotationError, match=r"^--annotations, subset 'val': '.*/none.csv': no"):
        look(str(videos), [f"training={videos.parent}/labels.csv", f"val={videos.parent}/none.csv"])


def test_a_subset_that_is_missing_here_and_there_is_refused(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN + "c,run,1,3,\n")
    with pytest.raises(
        AnnotationError, match=r"labels.csv: line 5: video 'c': .*'subset' is empty"
    ):
        look(str(videos))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.csv", "video,label,start,end\na,jump,0,2\n", "add a column 'subset', or give"),
        ("x.csv", RELEASED, "needs: give annotate.annotations as a mapping"),
        (
            "x.json",
            '{"database": {"a": {"annotations": []}}}',
            "add the key 'subset' to each video, or give",
        ),
    ],
)
def test_how_to_name_subsets_depends_on_the_format(
    videos: Path, name: str, text: str, expected: str
) -> None:
    (videos.parent / name).write_text(text)
    assert expected in " ".join(to_mend(look(str(videos))))


def test_a_list_of_videos_is_not_taken_for_annotations(videos: Path) -> None:
    listed = videos.parent / "list.csv"
    listed.write_text("uri\nvideos/a.mp4\nvideos/b.mkv\n")
    (videos.parent / "labels.csv").write_text(PLAIN)
    found = look(str(listed))
    assert (found.num_videos, found.annotations) == (2, str(videos.parent / "labels.csv"))
    (videos.parent / "labels.csv").rename(videos.parent.parent / "above.csv")
    assert look(str(listed)).annotations == str(videos.parent.parent / "above.csv")


@pytest.mark.parametrize("pattern", ["**/*.mp4", "*.mp4", "[ab].mp4", "?.mp4"])
def test_annotations_are_looked_for_beside_and_above_a_glob(videos: Path, pattern: str) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN)
    labels = str(videos.parent / "labels.csv")
    assert look(f"{videos}/{pattern}").annotations == labels
    assert look(f"{videos.parent}/*/a.mp4").annotations == labels


def test_folders_of_other_text_files_and_hidden_files_are_no_annotations(videos: Path) -> None:
    folder = videos.parent
    (folder / "labels.csv").write_text(PLAIN)
    (folder / "._labels.csv").write_bytes(b"\0\5\26\7")
    (folder / "notes").mkdir()
    (folder / "notes" / "read_me.txt").write_text("hello")
    (folder / "thumos").mkdir()
    (folder / "thumos" / "._Run_val.txt").write_bytes(b"\0\5\26\7")
    assert find_annotations(str(folder)) == [str(folder / "labels.csv")]


def test_nothing_but_the_folder_and_those_in_it_is_listed(tmp_path: Path) -> None:
    deep = tmp_path / "a [b] *c" / "one" / "two"
    deep.mkdir(parents=True)
    for folder in (deep, deep.parent, deep.parent.parent):
        (folder / "Run_val.txt").write_text("a 0 1\n")
    assert find_annotations(str(tmp_path / "a [b] *c")) == [str(deep.parent)]
    assert find_annotations(str(tmp_path)) == [str(deep.parent.parent)]
    assert find_annotations(str(tmp_path), below=("a [b] *c",)) == []


def test_what_is_below_the_folders_beside_the_videos_is_not_listed() -> None:
    for name in ("home/x.csv", "home/videos/more/a.mp4", "home/set/Run_val.txt"):
        fsspec.filesystem("counted").pipe_file(f"/{name}", b"a 0 1")
    CountedFiles.listed.clear()
    assert find_annotations("counted:///home") == ["counted:///home/set", "counted:///home/x.csv"]
    assert set(CountedFiles.listed) == {"/home", "/home/set", "/home/videos"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"--annotations: no \.json, \.csv or THUMOS14 folder in"),
        (
            {"a.csv": PLAIN, "b.csv": PLAIN},
            r"several files may be meant .*: a\.csv, b\.csv; give one \(--annotations PATH\), or "
            r"one for each subset \(--annotations training=FILE --annotations validation=FILE\)",
        ),
    ],
)
def test_no_or_several_annotations_are_refused(
    videos: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (videos.parent / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        look(str(videos))


def test_a_path_may_hold_an_equals_sign(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k=v").mkdir()
    for path in (tmp_path / "k=v" / "ann.csv", tmp_path / "k=v.csv"):
        path.write_text(PLAIN)
        assert look(str(videos), [str(path)]).annotations == str(path)
    monkeypatch.chdir(tmp_path)
    assert look(str(videos), ["k=v.csv"]).annotations == str(tmp_path / "k=v.csv")
    (tmp_path / "k=v.csv").write_text("video,label,start,end\na,jump,0,2\n")
    assert look(str(videos), ["training=k=v.csv"]).annotations == {
        "training": str(tmp_path / "k=v.csv")
    }


@pytest.mark.parametrize("given", [["a.json", "b.json"], ["training=", "x=y"], ["x=a", "/b=c"]])
def test_several_annotations_need_their_subsets(videos: Path, given: list[str]) -> None:
    with pytest.raises(ConfigError, match="give one path, or several as SUBSET=PATH"):
        look(str(videos), given)


def test_two_files_for_one_subset_are_refused(videos: Path) -> None:
    with pytest.raises(ConfigError, match=r"training=b\.csv: give each subset once"):
        look(str(videos), ["training=a.csv", "training=b.csv"])


def test_annotations_of_other_videos_are_refused(videos: Path) -> None:
    (videos.parent / "labels.csv").write_text(PLAIN.replace("a,", "x,").replace("b,", "y,"))
    with pytest.raises(AnnotationError, match="none of the 2 annotated videos"):
        look(str(videos))

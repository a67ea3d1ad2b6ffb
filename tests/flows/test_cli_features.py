"""`tsp features` as it is typed: whose clips, and which folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.features.clips import ENCODER, cut, video
from tests.flows.running import Tsp
from tsp_core.config import ClipConfig
from tsp_core.model.checkpoint import CheckpointInfo, save_checkpoint
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import TSPModel

CLIP = ClipConfig(length=4, frame_rate=5, resize_height=18, resize_width=20, crop_size=16)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with a video and a checkpoint."""
    video(tmp_path / "a.mp4", seconds=2.0)
    model = TSPModel(
        build_encoder(ENCODER), encoder_name=ENCODER, num_classes=2, heads="tsp", use_gvf=False
    )
    info = CheckpointInfo(encoder=ENCODER, heads="tsp", use_gvf=False, num_classes=2, clip=CLIP)
    save_checkpoint(tmp_path / "best.pth", model, info)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> ClipConfig:
    return ClipConfig(**json.loads((folder / "manifest.json").read_text())["clip"])


def test_clips_are_as_the_checkpoint_was_trained(
    tsp: Tsp, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, out, _ = tsp("features", "a.mp4", "--checkpoint", "best.pth", "--out", "out")
    assert (code, out) == (0, "out: 1 x 128 of 1 videos\n")
    assert made(files / "out") == CLIP
    assert caplog.messages == []


def test_options_count_and_a_warning_names_both_values(
    tsp: Tsp, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--checkpoint", "best.pth", "--frame-rate", "10", "--clip-length", "4")
    code, _, err = tsp("features", "a.mp4", *options, "--out", "out")
    assert code == 0, err
    assert made(files / "out") == CLIP.model_copy(update={"frame_rate": 10.0})
    (message,) = caplog.messages
    assert "frame_rate 10.0, as given; the checkpoint was trained with frame_rate 5.0" in message


def test_where_a_checkpoint_does_not_say_clips_are_the_released_ones(tsp: Tsp, files: Path) -> None:
    options = ("--checkpoint", "random:0", "--encoder", ENCODER, "--out", "out")
    code, _, err = tsp("features", "a.mp4", *options)
    assert code == 0, err
    assert made(files / "out") == ClipConfig()


def test_a_folder_with_features_of_other_settings_is_bad_input(tsp: Tsp, files: Path) -> None:
    options = ("--checkpoint", "best.pth", "--out", "out", "--stride")
    assert tsp("features", "a.mp4", *options, "4")[0] == 0
    code, _, err = tsp("features", "a.mp4", *options, "8")
    assert code == 2
    assert "out: holds features of other settings: stride 4 (now: 8); choose another" in err


def test_without_any_features_the_reasons_are_told(tsp: Tsp, files: Path) -> None:
    code, out, err = tsp("features", "b.mp4", "--checkpoint", "best.pth", "--out", "new/out")
    assert (code, out) == (2, "")
    assert "left out: b.mp4: missing: 'b.mp4' does not exist" in err
    assert "none of the 1 videos could be used, for the reasons above; nothing was written" in err
    assert not (files / "new").exists()


def test_videos_that_are_left_out_are_told_with_their_folders(tsp: Tsp, files: Path) -> None:
    for folder in ("one", "two"):
        cut(video(files / folder / "x.mp4"), files / folder / "x.mp4")
        video(files / folder / "y.mp4", seconds=2.0)
    options = ("--checkpoint", "best.pth", "--out", "out", "--quiet")
    code, out, err = tsp("features", "one", f"{files}/two", *options)
    assert (code, out) == (0, "out: 1 x 128 of 1 videos, 3 left out\n")
    lines = err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["left out", "one/x.mp4", "unreadable"],
        ["left out", f"{files}/two/x.mp4", "unreadable"],
        ["left out", f"{files}/two/y.mp4", "duplicate_name"],
    ]
    assert lines[2].endswith(
        "'one/y.mp4' is called 'y' too, and its features were taken; to have both, rename one of "
        "the files, or give this one in a call with another folder (--out)"
    )


def test_scripts_get_the_files_that_are_left_out(tsp: Tsp, files: Path) -> None:
    cut(video(files / "one" / "x.mp4"), files / "one" / "x.mp4")
    options = ("--checkpoint", "best.pth", "--out", "out", "--json")
    code, out, _ = tsp("features", "a.mp4", "one/", *options)
    assert code == 0
    document = json.loads(out)
    assert document["num_rows"] == {"a": 1}
    why = document["quarantined"]["x"]
    assert (why["uri"], why["code"]) == ("one/x.mp4", "unreadable")


def test_folders_and_quoted_patterns_are_expanded(tsp: Tsp, files: Path) -> None:
    for name in ("v/b.mp4", "v/inner/c.mkv", "v/note.txt"):
        video(files / name, seconds=2.0) if "note" not in name else (files / name).write_text("")
    options = ("--checkpoint", "best.pth", "--json", "--quiet")
    for given, names in (("v/", ["b", "c"]), ("v/*.mp4", ["b"]), ("*/*/*", ["c"]), (".", "abc")):
        code, out, err = tsp("features", given, *options, "--out", f"out-{len(names)}{names[0]}")
        assert (code, err) == (0, "")
        assert list(json.loads(out)["num_rows"]) == list(names)


@pytest.mark.parametrize("given", ["empty", "empty/*.mp4", "*.avi"])
def test_a_folder_without_videos_is_bad_input(tsp: Tsp, files: Path, given: str) -> None:
    (files / "empty").mkdir()
    (files / "empty" / "note.txt").write_text("")
    code, _, err = tsp("features", "a.mp4", given, "--checkpoint", "best.pth", "--out", "out")
    assert code == 2
    assert f"features: videos: '{given}': no videos found; looked for files that end in mp4" in err
    assert not (files / "out").exists()


def test_every_option_has_its_help(tsp: Tsp) -> None:
    code, out, _ = tsp("features", "--help")
    assert code == 0
    for part in ("Files, folders", "Frames per clip. Default", "Folder or URI prefix to write to"):
        assert part in out

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import tsp_core
from tests.features.clips import CLIP, ENCODER, cut, extractor, row, video
from tests.video.crashing import crashing
from tsp_core import storage
from tsp_core.errors import ConfigError, VideoError, WeightsError
from tsp_core.features import extraction, loose, quick
from tsp_core.features.quick import ExtractionReport, extract_files
from tsp_core.model.checkpoint import CheckpointInfo, save_checkpoint
from tsp_core.model.heads import TSPModel
from tsp_core.model.weights import LoadedEncoder, open_encoder
from tsp_core.storage import faults
from tsp_core.video import files
from tsp_core.video.sampling import timeline_from_row
from tsp_core.video.trouble import MachineTroubleError


def extract(videos: list[Path], out: Path, **options: Any) -> ExtractionReport:
    fields = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP, "stride": 4} | options
    return extract_files([str(path) for path in videos], out=str(out), device="cpu", **fields)


def test_features_of_files_and_a_bad_one_reported(tmp_path: Path) -> None:
    good = [video(tmp_path / "b.mp4"), video(tmp_path / "a.mkv", seconds=2.0)]
    bad = cut(tmp_path / "broken.mp4", good[0])
    seen: list[tuple[int, int, str]] = []
    report = extract([*good, bad], tmp_path / "out", progress=lambda *args: seen.append(args))
    assert report.videos == {"a": 4, "b": 7}
    assert report.quarantined["broken"].code == "unreadable"
    assert set(report.files) == {"a.npy", "b.npy", "manifest.json", "times.parquet"}
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "broken")]
    expected = extractor(16).extract_row(row(good[0]), CLIP, 4).features
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "b.npy"), expected)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["videos"]) == {"a", "b"}
    assert set(manifest["quarantined"]) == {"broken"}
    assert manifest["checkpoint"].startswith("random:0")
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("name", "file"), [("h5", "features.h5"), ("pkl", "a.pkl"), ("parquet", "features.parquet")]
)
def test_every_format_lies_directly_in_the_folder(tmp_path: Path, name: str, file: str) -> None:
    report = extract([video(tmp_path / "a.mp4")], tmp_path / "out", format=name)
    assert file in report.files
    assert (tmp_path / "out" / file).is_file()


def test_an_object_store_takes_the_files_too(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", seconds=2.0)
    storage.upload(path, "memory://videos/a.mp4")
    report = extract_files(
        ["memory://videos/a.mp4"],
        checkpoint="random:0",
        encoder=ENCODER,
        clip=CLIP,
        stride=4,
        out="memory://features/out",
        format="h5",
        cache_dir=str(tmp_path / "cache"),
    )
    assert report.videos == {"a": 4}
    storage.download("memory://features/out/features.h5", tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["a"].shape == (4, 128)


def test_the_frames_before_a_break_are_used_where_that_is_asked_for(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mkv", seconds=6.0)
    path = cut(tmp_path / "broken.mkv", whole)
    report = extract([path], tmp_path / "out")
    assert (report.videos, report.files) == ({}, ())
    assert report.quarantined["broken"].code == "truncated"
    assert "--truncated" in report.quarantined["broken"].reason
    kept = extract([path], tmp_path / "out", truncated="keep")
    assert 0 < kept.videos["broken"] < extract([whole], tmp_path / "out").videos["whole"]
    rows = tsp_core.extract_features(
        path, checkpoint="random:0", encoder=ENCODER, clip=CLIP, stride=4, truncated="keep"
    )
    np.testing.assert_array_equal(rows.features, np.load(tmp_path / "out" / "broken.npy"))


def test_trouble_of_the_machine_costs_no_features_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0,))
    measured = loose.measured
    tries: list[str] = []

    def fail(name: str, *arguments: Any) -> dict[str, Any]:
        if name == "b":
            tries.append(name)
            raise MachineTroubleError(f"'{tmp_path}/b.mp4' cannot be read now: Stale (ESTALE)")
        return measured(name, *arguments)

    monkeypatch.setattr(loose, "measured", fail)
    paths = [video(tmp_path / f"{name}.mp4") for name in "abc"]
    report = extract(paths, tmp_path / "out")
    assert list(report.videos) == ["a", "c"]
    assert report.quarantined["b"].code == "missing"
    assert report.quarantined["b"].reason == (
        f"'{tmp_path}/b.mp4' cannot be read now: Stale (ESTALE)"
    )
    assert tries == ["b", "b"]
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(manifest)["quarantined"]["b"] == {
        "code": "missing",
        "reason": "'b.mp4' could not be read at that time",
    }
    assert str(tmp_path) not in manifest


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="name the encoder too"):
        extract([video(tmp_path / "a.mp4")], tmp_path / "out", encoder=None)


@pytest.mark.parametrize("options", [{}, {"checkpoint": "kinetics"}], ids=["default", "kinetics"])
def test_kinetics_weights_are_of_the_configured_encoder_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    asked: list[tuple[str, str | None]] = []

    def opened(weights: str, *, name: str | None, **_: Any) -> LoadedEncoder:
        asked.append((weights, name))
        return open_encoder("random:0", name=ENCODER)

    monkeypatch.setattr(quick, "open_encoder", opened)
    path = video(tmp_path / "a.mp4", seconds=2.0)
    rows = tsp_core.extract_features(path, **options, clip=CLIP, stride=4, device="cpu")
    assert rows.features.shape == (4, 128)
    assert rows.centers_seconds.shape == (4,)
    extract([path], tmp_path / "out", checkpoint="kinetics", encoder=None)
    extract([path], tmp_path / "out", checkpoint="kinetics", encoder="r3d_18")
    encoders = ["r2plus1d_34", "r2plus1d_34", "r3d_18"]
    assert asked == [("kinetics", name) for name in encoders]


def test_without_a_mirror_of_the_weights_the_error_names_their_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="r2plus1d_34_clip8_ft_kinetics"):
        tsp_core.extract_features(tmp_path / "a.mp4", mirror=str(tmp_path))


def test_a_file_that_crashes_the_decoder_leaves_a_notebook_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        extraction, "timeline_from_row", lambda values: crashing(timeline_from_row(values))
    )
    with pytest.raises(VideoError) as caught:
        tsp_core.extract_features(
            video(tmp_path / "a.mp4"), checkpoint="random:0", encoder=ENCODER, clip=CLIP
        )
    assert caught.value.code == "crashed"


def test_the_name_of_one_video_is_that_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "a.b.mp4", seconds=2.0)
    real = files.local_video
    monkeypatch.setattr(loose, "local_video", lambda _, *rest: real(str(path), *rest))
    monkeypatch.setattr(extraction, "local_video", lambda _, *rest: real(str(path), *rest))
    uri = "https://example.org/videos/a.b.mp4?signature=secret.mp4/x"
    options: dict[str, Any] = {"checkpoint": "random:0", "encoder": ENCODER, "device": "cpu"}
    rows = tsp_core.extract_features(uri, **options, clip=CLIP, stride=4)
    assert rows.video == "a.b"


TRAINED = CLIP.model_copy(update={"length": 4, "frame_rate": 5.0})


def trained(path: Path) -> Path:
    """Write a checkpoint that says it was trained on other clips than the default."""
    encoder = open_encoder("random:0", name=ENCODER).encoder
    model = TSPModel(encoder, encoder_name=ENCODER, num_classes=2, heads="tsp", use_gvf=False)
    info = CheckpointInfo(encoder=ENCODER, heads="tsp", use_gvf=False, num_classes=2, clip=TRAINED)
    save_checkpoint(path, model, info)
    return path


def test_clips_are_by_default_as_the_checkpoint_was_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, checkpoint = video(tmp_path / "a.mp4"), trained(tmp_path / "best.pth")
    options: dict[str, Any] = {"checkpoint": checkpoint, "device": "cpu", "stride": 4}
    expected = extractor(16).extract_row(row(path), TRAINED, 4)
    rows = tsp_core.extract_features(path, **options)
    np.testing.assert_array_equal(rows.features, expected.features)
    report = extract_files([path], out=tmp_path / "out", **options)
    assert report.source.clip == TRAINED
    assert not caplog.messages


@pytest.mark.parametrize("clip", [{"length": 8}, TRAINED.model_copy(update={"length": 8})])
def test_clips_that_are_given_count_and_one_line_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clip: Any
) -> None:
    path, checkpoint = video(tmp_path / "a.mp4"), trained(tmp_path / "best.pth")
    given = TRAINED.model_copy(update={"length": 8})
    expected = extractor(16).extract_row(row(path), given, 4)
    rows = tsp_core.extract_features(path, checkpoint=checkpoint, clip=clip, stride=4, device="cpu")
    np.testing.assert_array_equal(rows.features, expected.features)
    (message,) = caplog.messages
    assert message == (
        "features: clip: length 8, as given; the checkpoint was trained with length 4"
    )


def test_a_single_file_needs_no_list(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", seconds=2.0)
    options: dict[str, Any] = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP}
    for given in (str(path), path):
        report = extract_files(given, out=tmp_path / "out", stride=4, device="cpu", **options)
        assert report.videos == {"a": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "features: precision: 'fp8': Input should be 'fp32', 'bf16' or"),
        ({"device": "gpu"}, "features: device: 'gpu': expected 'auto', 'cpu', 'cuda' or"),
        ({"device": "cuda:99"}, r"features: device: 'cuda:99': torch finds \d+ GPUs here"),
        ({"batch_size": 0}, "features: batch_size: 0: Input should be greater than or equal to 1"),
        ({"stride": -4}, "features: stride: -4: Input should be greater than or equal to 1"),
        ({"stride": 1.5}, "features: stride: 1.5: Input should be a valid integer"),
        ({"checkpoint": 3}, "features: checkpoint: 3: expected a text"),
        ({"clip": {"lenght": 8}}, "features: clip.lenght: unknown key; did you mean 'length'"),
        ({"clip": {"length": 0}}, "features: clip.length: 0: Input should be greater"),
        ({"clip": 8}, "features: clip: 8: expected a ClipConfig or a mapping"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    given = {"checkpoint": "random:0", "encoder": ENCODER} | options
    with pytest.raises(ConfigError, match=message):
        tsp_core.extract_features(tmp_path / "a.mp4", **given)
    with pytest.raises(ConfigError, match=message):
        extract_files([tmp_path / "a.mp4"], out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("videos", 3), ("videos", [None]), ("out", 3), ("format", "npyy")]
)
def test_a_wrong_argument_of_files_is_named(tmp_path: Path, name: str, value: Any) -> None:
    given = {"videos": [tmp_path / "a.mp4"], "out": tmp_path / "out", name: value}
    with pytest.raises(ConfigError, match=f"features: {name}: .*(expected a? ?path|did you mean)"):
        extract_files(**given, checkpoint="random:0", encoder=ENCODER)


def test_relative_paths_follow_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP}
    for name in ("one", "two"):
        video(tmp_path / name / "a.mp4", seconds=2.0)
        monkeypatch.chdir(tmp_path / name)
        rows = tsp_core.extract_features("a.mp4", **options, stride=4, device="cpu")
        assert len(rows.features) == 4

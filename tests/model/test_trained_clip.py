from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tsp_core import storage
from tsp_core.config import ClipConfig, EncoderConfig
from tsp_core.errors import ConfigError, WeightsError
from tsp_core.model.checkpoint import CheckpointInfo, save_checkpoint
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import TSPModel
from tsp_core.model.trained_clip import check_exported_clip, trained_clip

CLIP = ClipConfig(length=8, frame_rate=25, resize_height=64, resize_width=80, crop_size=56)
ENCODER = "r2plus1d_tiny"
RELEASED = {"model": {"features.w": torch.zeros(3)}, "epoch": 1}


def ours(path: Path, clip: ClipConfig = CLIP) -> Path:
    """Write a checkpoint of this project."""
    model = TSPModel(
        build_encoder(ENCODER), encoder_name=ENCODER, num_classes=2, heads="tsp", use_gvf=False
    )
    info = CheckpointInfo(encoder=ENCODER, heads="tsp", use_gvf=False, num_classes=2, clip=clip)
    save_checkpoint(path, model, info)
    return path


def test_our_checkpoints_say_all_settings(tmp_path: Path) -> None:
    found = trained_clip(str(ours(tmp_path / "a.pth")))
    assert found is not None
    assert found.is_ours
    assert ClipConfig(**found.settings) == CLIP
    assert found.difference(CLIP) == ("", "")
    other = CLIP.model_copy(update={"length": 16, "crop_size": 60})
    assert found.difference(other) == ("length 16, crop_size 60", "length 8, crop_size 56")


def test_a_remote_checkpoint_says_so_too(tmp_path: Path) -> None:
    storage.upload(ours(tmp_path / "a.pth"), "memory://trained/a.pth")
    found = trained_clip("memory://trained/a.pth", cache_dir=str(tmp_path / "cache"))
    assert found is not None
    assert found.settings["frame_rate"] == 25


@pytest.mark.parametrize("is_new", [True, False], ids=["zip", "as before PyTorch 1.6"])
@pytest.mark.parametrize(
    ("args", "settings"),
    [
        (argparse.Namespace(clip_len=8, frame_rate=25), {"length": 8, "frame_rate": 25}),
        ({"clip_len": 32, "frame_rate": None}, {"length": 32}),
        (argparse.Namespace(clip_len="long"), None),  # another project's
        (argparse.Namespace(lr=0.1), None),
        (None, None),
    ],
)
def test_released_checkpoints_say_frames_and_rate(
    tmp_path: Path, args: Any, settings: dict[str, Any] | None, is_new: bool
) -> None:
    path = tmp_path / "released.pth"
    torch.save({**RELEASED, "args": args}, path, _use_new_zipfile_serialization=is_new)
    found = trained_clip(str(path))
    assert (None if found is None else (found.settings, found.is_ours)) == (
        None if settings is None else (settings, False)
    )


def test_what_says_nothing(tmp_path: Path) -> None:
    torch.save(RELEASED["model"], tmp_path / "bare.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK no zip")
    for weights in ("kinetics", "random:3", *map(str, tmp_path.iterdir())):
        assert trained_clip(weights, "r3d_18") is None
    with pytest.raises(WeightsError, match="no file"):
        trained_clip(str(tmp_path / "absent.pth"))


def test_a_description_of_another_version_counts_as_the_released_codes(tmp_path: Path) -> None:
    content = torch.load(ours(tmp_path / "a.pth"), weights_only=True)
    content["tsp"]["version"] = 99
    torch.save(content, tmp_path / "next.pth")
    found = trained_clip(str(tmp_path / "next.pth"))
    assert found is not None
    assert (found.is_ours, found.settings) == (False, {"length": 8, "frame_rate": 25})


def test_the_tensors_are_not_read(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2  # tensors are nearly all of the file
    content[middle : middle + 1000] = b"x" * 1000
    path.write_bytes(content)
    found = trained_clip(str(path))
    assert found is not None
    assert ClipConfig(**found.settings) == CLIP


def test_an_export_of_other_clips_is_refused(tmp_path: Path) -> None:
    encoder = EncoderConfig(name=ENCODER, weights=str(ours(tmp_path / "a.pth")))
    check_exported_clip(CLIP, encoder, "sha256:1", None)
    message = r"clip: length 16, .*, but export\.checkpoint was trained with length 8, .*; set clip"
    with pytest.raises(ConfigError, match=message):
        check_exported_clip(ClipConfig(), encoder, "sha256:1", None)


def test_released_checkpoints_on_other_clips_are_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "released.pth"
    torch.save({**RELEASED, "args": argparse.Namespace(clip_len=16, frame_rate=15)}, path)
    encoder = EncoderConfig(name=ENCODER, weights=str(path))
    with caplog.at_level(logging.WARNING):
        check_exported_clip(ClipConfig(crop_size=100), encoder, "sha256:1", None)
        assert caplog.messages == []
        for _ in range(3):
            check_exported_clip(ClipConfig(frame_rate=30), encoder, "sha256:1", None)
    (message,) = caplog.messages
    assert "clip: frame_rate 30.0, but export.checkpoint was trained with frame_rate 15" in message

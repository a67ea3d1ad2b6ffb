"""Checkpoints: ours in the released code's model, the released ones in ours, bytes, faults."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tsp_core import storage
from tsp_core.config import ClipConfig
from tsp_core.errors import WeightsError
from tsp_core.model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import Heads, TSPModel
from tsp_core.model.weights import open_encoder

KINDS: list[tuple[Heads, bool]] = [
    ("tsp", True),
    ("tsp", False),
    ("tac", False),
    ("region", False),
    ("region", True),
]


def model_and_info(heads: Heads, use_gvf: bool) -> tuple[TSPModel, CheckpointInfo]:
    info = CheckpointInfo(
        encoder="r2plus1d_tiny",
        heads=heads,
        use_gvf=use_gvf,
        num_classes=3,
        classes=("jump", "run", "sit"),
        clip=ClipConfig(length=8, frame_rate=10, resize_height=20, resize_width=20, crop_size=16),
        gvf_pooling="max" if use_gvf else "none",
        gvf_stride=8 if use_gvf else None,
        encoder_weights="random:0:r2plus1d_tiny",
        epoch=4,
    )
    torch.manual_seed(2)
    encoder = open_encoder("random:0", name="r2plus1d_tiny").encoder
    model = TSPModel(
        encoder, encoder_name="r2plus1d_tiny", num_classes=3, heads=heads, use_gvf=use_gvf
    )
    return model.eval(), info


class ReleasedLayout(nn.Module):
    """A model with the released code's module names and call, written anew."""

    def __init__(self, num_classes: list[int], *, concat_gvf: bool) -> None:
        super().__init__()
        self.features = build_encoder("r2plus1d_tiny")
        self.concat_gvf = concat_gvf
        if len(num_classes) == 1:
            self.fc = nn.Linear(128, num_classes[0])
        else:
            self.fc1 = nn.Linear(128, num_classes[0])
            self.fc2 = nn.Linear(256 if concat_gvf else 128, num_classes[1])

    def forward(self, x: torch.Tensor, gvf: torch.Tensor | None = None) -> list[torch.Tensor]:
        x = self.features(x)
        if hasattr(self, "fc"):
            return [self.fc(x)]
        return [self.fc1(x), self.fc2(torch.cat([x, gvf], dim=-1) if self.concat_gvf else x)]


@pytest.mark.parametrize(("heads", "use_gvf"), KINDS[:4])
def test_ours_loads_strictly_in_the_released_layout(
    heads: Heads, use_gvf: bool, clips: torch.Tensor, tmp_path: Path
) -> None:
    model, info = model_and_info(heads, use_gvf)
    save_checkpoint(tmp_path / "c.pth", model, info)
    file = torch.load(tmp_path / "c.pth", weights_only=True)  # as PyTorch's present default
    sizes = {"tsp": [3, 2], "tac": [3], "region": [2]}[heads]
    released = ReleasedLayout(sizes, concat_gvf=use_gvf).eval()
    released.load_state_dict(file["model"], strict=True)
    assert (file["epoch"], file["args"]["backbone"]) == (4, "r2plus1d_tiny")
    gvf = torch.randn(2, 128)
    with torch.inference_mode():
        ours = [logits for logits in model(clips, gvf)[1:] if logits is not None]
        theirs = released(clips, gvf)
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(("heads", "use_gvf"), KINDS)
def test_a_checkpoint_comes_back_as_it_was(
    heads: Heads, use_gvf: bool, clips: torch.Tensor, tmp_path: Path
) -> None:
    model, info = model_and_info(heads, use_gvf)
    path = tmp_path / "c.pth"
    extra = {"optimizer": {"momentum": [torch.arange(3.0), None]}, "lr_scheduler": {"step": 7}}
    save_checkpoint(path, model, info, extra=extra)
    loaded = load_checkpoint(str(path))
    assert loaded.info == info
    assert loaded.identity == f"sha256:{storage.sha256_of_file(path)}"
    assert loaded.extra["lr_scheduler"] == {"step": 7}
    assert torch.equal(loaded.extra["optimizer"]["momentum"][0], torch.arange(3.0))
    assert not loaded.model.training
    gvf = torch.randn(2, 128)
    with torch.inference_mode():
        for before, after in zip(model(clips, gvf), loaded.model(clips, gvf), strict=True):
            assert (before is None) == (after is None)
            assert before is None or torch.equal(before, after)
    encoder = open_encoder(str(path), name="r2plus1d_tiny").encoder
    assert torch.equal(encoder(clips), model.features(clips))


def released_file(path: Path, num_classes: list[int], *, concat_gvf: bool, **args: Any) -> str:
    torch.manual_seed(1)
    content = {
        "model": ReleasedLayout(num_classes, concat_gvf=concat_gvf).state_dict(),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
        "lr_scheduler": {"milestones": [4, 6]},
        "epoch": 5,
        "args": argparse.Namespace(backbone="r2plus1d_tiny", lr=0.1, debug=False, **args),
    }
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize(
    ("num_classes", "concat_gvf", "columns", "expected"),
    [
        ([200, 2], True, ["action-label", "temporal-region-label"], ("tsp", True, 200, None)),
        ([200, 2], False, ["action-label", "temporal-region-label"], ("tsp", False, 200, "none")),
        ([20], False, ["action-label"], ("tac", False, 20, "none")),
        ([2], False, ["action-label"], ("tac", False, 2, "none")),
        ([2], False, ["temporal-region-label"], ("region", False, 0, "none")),
    ],
)
def test_released_checkpoints_load_with_what_their_shapes_tell(
    num_classes: list[int],
    concat_gvf: bool,
    columns: list[str],
    expected: tuple[object, ...],
    clips: torch.Tensor,
    tmp_path: Path,
) -> None:
    path = released_file(
        tmp_path / "r.pth", num_classes, concat_gvf=concat_gvf, label_columns=columns, clip_len=32
    )
    loaded = load_checkpoint(path, encoder="r2plus1d_tiny")
    info = loaded.info
    assert (info.heads, info.use_gvf, info.num_classes, info.gvf_pooling) == expected
    assert (info.encoder, info.epoch, info.classes) == ("r2plus1d_tiny", 5, ())
    assert info.clip == ClipConfig(length=32)
    released = ReleasedLayout(num_classes, concat_gvf=concat_gvf).eval()
    released.load_state_dict(torch.load(path, weights_only=False)["model"])
    gvf = torch.randn(2, 128)
    with torch.inference_mode():
        ours = [logits for logits in loaded.model(clips, gvf)[1:] if logits is not None]
        assert all(map(torch.equal, ours, released(clips, gvf)))


def test_a_released_name_comes_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsp_core.model import identity
    from tsp_core.model.published import PublishedFile

    path = released_file(tmp_path / "tiny-tsp.pth", [3, 2], concat_gvf=True)
    file = PublishedFile(
        name="tiny-tsp",
        encoder="r2plus1d_tiny",
        url="https://weights.invalid/tiny-tsp.pth",
        sha256_prefix=storage.sha256_of_file(Path(path))[:8],
        about="a test",
        gvf="avg",
    )
    monkeypatch.setattr(identity, "released_files", lambda: {"tiny-tsp": file})
    loaded = load_checkpoint("tiny-tsp", mirror=str(tmp_path))
    assert (loaded.info.gvf_pooling, loaded.info.encoder) == ("avg", "r2plus1d_tiny")
    assert loaded.identity == f"sha256:{file.sha256_prefix}"


def test_equal_content_gives_equal_bytes_whatever_shares_memory(tmp_path: Path) -> None:
    model, info = model_and_info("tsp", True)
    base = torch.arange(12.0)
    shared_word = "momentum"
    first = {"a": base[:3], "b": [shared_word, shared_word], "t": (1, None, 0.5)}
    second = {
        "a": torch.arange(3.0),
        "b": ["momentum", "".join(["mo", "mentum"])],
        "t": (1, None, 0.5),
    }
    save_checkpoint(tmp_path / "first.pth", model, info, extra=first)
    model.to(memory_format=torch.channels_last_3d)
    other = tmp_path / "elsewhere" / "second-with-another-name.pth"
    save_checkpoint(other, model, info, extra=second)
    assert (tmp_path / "first.pth").read_bytes() == other.read_bytes()
    loaded = load_checkpoint(str(other))
    save_checkpoint(tmp_path / "third.pth", loaded.model, loaded.info, extra=loaded.extra)
    assert (tmp_path / "third.pth").read_bytes() == other.read_bytes()
    assert [p.name for p in other.parent.iterdir()] == [other.name]  # nothing aside is left


@pytest.mark.parametrize("value", [Path("x"), collections.Counter([4, 6]), {1, 2}])
def test_what_could_not_be_loaded_again_is_not_saved(value: object, tmp_path: Path) -> None:
    model, info = model_and_info("tac", False)
    message = rf"\[{'optimizer'!r}\]\[0\]: a .*{type(value).__name__} cannot be kept"
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "c.pth", model, info, extra={"optimizer": [value]})
    assert not list(tmp_path.iterdir())


def test_a_description_must_fit_the_model(tmp_path: Path) -> None:
    model, info = model_and_info("tsp", True)
    for wrong in ({"heads": "tac"}, {"use_gvf": False}, {"num_classes": 4}):
        with pytest.raises(ValueError, match="does not describe the model"):
            save_checkpoint(tmp_path / "c.pth", model, info.model_copy(update=wrong))
    with pytest.raises(ValueError, match=r"extra: \['model'\] are written by save_checkpoint"):
        save_checkpoint(tmp_path / "c.pth", model, info, extra={"model": 1})


def changed(path: Path, **entries: object) -> str:
    content = torch.load(path, weights_only=True)
    content.update(entries)
    torch.save(content, path)
    return str(path)


def test_unusable_checkpoints_are_refused(tmp_path: Path) -> None:
    model, info = model_and_info("tsp", True)
    path = tmp_path / "c.pth"
    save_checkpoint(path, model, info)
    with pytest.raises(WeightsError, match="holds the weights of r2plus1d_tiny, asked for r3d_18"):
        load_checkpoint(str(path), encoder="r3d_18")
    described = info.model_dump(mode="json")
    with pytest.raises(WeightsError, match="version 99 of the entry 'tsp' is unknown"):
        load_checkpoint(changed(path, tsp={**described, "version": 99}))
    with pytest.raises(WeightsError, match="the entry 'tsp' is damaged"):
        load_checkpoint(changed(path, tsp={**described, "heads": "three"}))
    with pytest.raises(WeightsError, match=r"heads of shapes .* expected .*'fc1.weight': \(7, 128"):
        load_checkpoint(changed(path, tsp={**described, "num_classes": 7}))
    encoder = {k: v for k, v in model.state_dict().items() if k.startswith("features.")}
    with pytest.raises(WeightsError, match=r"heads \['fc9.weight'\] are none of a TSP model"):
        load_checkpoint(changed(path, model={**encoder, "fc9.weight": torch.ones(2, 2)}))
    with pytest.raises(WeightsError, match="holds an encoder without heads"):
        load_checkpoint(changed(path, model=encoder))
    with pytest.raises(WeightsError, match="drawn weights have no heads"):
        load_checkpoint("random:0", encoder="r3d_18")


def test_an_encoder_whose_extension_is_not_loaded_is_named(tmp_path: Path) -> None:
    model, info = model_and_info("tsp", True)
    path = tmp_path / "c.pth"
    save_checkpoint(path, model, info)
    content = torch.load(path, weights_only=True)
    content["model"]["features.more.weight"] = torch.zeros(1)
    content["tsp"]["encoder"] = "swallow"
    torch.save(content, path)
    message = r"a checkpoint of 'swallow', an encoder that an extension adds.*TSP_EXTENSIONS"
    for asked in (None, "r3d_18"):
        with pytest.raises(WeightsError, match=message):
            load_checkpoint(str(path), encoder=asked)

"""Encoders with weights: every layout of file, and every file that must be refused."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from tsp_core import storage
from tsp_core.config import EncoderConfig
from tsp_core.errors import WeightsError
from tsp_core.model.encoders import build_encoder
from tsp_core.model.weights import load_encoder, open_encoder

State = dict[str, torch.Tensor]


def same(encoder: torch.nn.Module, state: State) -> bool:
    found = encoder.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


def saved(path: Path, content: object, **options: object) -> str:
    torch.save(content, path, **options)
    return str(path)


def layouts(state: State) -> dict[str, object]:
    classifier = {"fc.weight": torch.randn(400, 128), "fc.bias": torch.randn(400)}
    released = {f"features.{key}": value for key, value in state.items()}
    heads = {
        "fc1.weight": torch.randn(3, 128),
        "fc1.bias": torch.zeros(3),
        "fc2.weight": torch.randn(2, 256),
        "fc2.bias": torch.zeros(2),
    }
    args = argparse.Namespace(backbone="r2plus1d_tiny", clip_len=16, lr_milestones=[4, 6])
    return {
        "encoder alone": state,
        "with a classifier": {**state, **classifier},
        "without counters": {k: v for k, v in state.items() if "num_batches" not in k},
        "distributed": {f"module.{key}": value for key, value in state.items()},
        "checkpoint": {"model": {**released, **heads}, "optimizer": {}, "epoch": 3, "args": args},
        "state_dict": {"state_dict": {**state, **classifier}},
        "distributed checkpoint": {"model": {f"module.{k}": v for k, v in released.items()}},
    }


@pytest.mark.parametrize("layout", list(layouts({})))
def test_every_layout_gives_the_encoder(layout: str, tiny_state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", layouts(tiny_state)[layout])
    loaded = open_encoder(path)
    assert loaded.name == "r2plus1d_tiny"
    assert loaded.feature_size == 128
    assert loaded.description == "w.pth"
    assert not loaded.encoder.training
    assert all(parameter.requires_grad for parameter in loaded.encoder.parameters())
    expected = dict(tiny_state)
    if layout == "without counters":
        expected |= {k: torch.zeros_like(v) for k, v in tiny_state.items() if "num_batches" in k}
    assert same(loaded.encoder, expected)


def test_files_of_old_torch_and_in_half_precision_load(tiny_state: State, tmp_path: Path) -> None:
    old = saved(tmp_path / "old.pth", tiny_state, _use_new_zipfile_serialization=False)
    assert same(open_encoder(old).encoder, tiny_state)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tiny_state.items()}
    encoder = open_encoder(saved(tmp_path / "half.pth", half)).encoder
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_drawn_weights_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    loaded = load_encoder(EncoderConfig(name="r2plus1d_tiny", weights="random:5"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert same(loaded.encoder, build_encoder("r2plus1d_tiny").state_dict())
    assert loaded.identity == "random:5:r2plus1d_tiny"


@pytest.mark.shared
def test_a_real_file_of_trained_weights_loads(shared: Path) -> None:
    path = shared / "weights" / "mc3_18_kinetics400_finetuned_fight.pth"
    loaded = open_encoder(str(path))
    assert (loaded.name, loaded.feature_size) == ("mc3_18", 512)
    file = torch.load(path, map_location="cpu", weights_only=True)
    assert torch.equal(loaded.encoder.layer4[1].conv2[0].weight, file["layer4.1.conv2.0.weight"])
    with pytest.raises(WeightsError, match="holds the weights of mc3_18, asked for r2plus1d_34"):
        open_encoder(str(path), name="r2plus1d_34")


@pytest.mark.parametrize("found", ["r2plus1d_18", "r3d_18", "mc3_18"])
def test_the_wrong_encoder_is_refused_by_name(found: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build_encoder(found).state_dict().items()}
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    path = saved(tmp_path / "w.pth", state)
    message = f"w.pth': holds the weights of {found}, asked for r2plus1d_34; set the encoder to"
    with pytest.raises(WeightsError, match=message):
        open_encoder(path, name="r2plus1d_34")


def test_weights_of_no_encoder_are_refused_with_the_difference(
    tiny_state: State, tmp_path: Path
) -> None:
    state = dict(tiny_state)
    del state["stem.0.weight"]
    state["stem.7.weight"] = torch.zeros(1)
    state["stem.1.bias"] = torch.zeros(17)
    path = saved(tmp_path / "w.pth", state)
    message = (
        r"not the weights of r2plus1d_tiny: 1 missing \(stem.0.weight, ...\); 1 unknown "
        r"\(stem.7.weight, ...\); stem.1.bias has shape \(17,\), expected \(16,\)"
    )
    with pytest.raises(WeightsError, match=message):
        open_encoder(path)
    with pytest.raises(WeightsError, match=r"not the weights of r3d_18: .* missing"):
        open_encoder(path, name="r3d_18")


def test_numbers_that_are_not_finite_are_refused(tiny_state: State, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in tiny_state.items()}
    state["layer2.0.conv1.1.bias"][3] = torch.nan
    path = saved(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match=r"not finite in layer2\.0\.conv1\.1\.bias"):
        open_encoder(path)


class _Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(
    form: str, tiny_state: State, tmp_path: Path
) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "made-by-the-file"
    content = {"model": tiny_state, "args": _Evil(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(WeightsError, match=r"w\.pth: refused: .*could run code"):
        open_encoder(str(path))
    assert not target.exists()


def test_code_inside_the_allowed_namespace_is_refused(tiny_state: State, tmp_path: Path) -> None:
    target = tmp_path / "made-by-the-file"
    args = argparse.Namespace(callback=_Evil(target))
    path = saved(tmp_path / "w.pth", {"model": tiny_state, "args": args})
    with pytest.raises(WeightsError, match=r"refused: .*could run code"):
        open_encoder(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x02}", b"no weights at all"])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pth: refused: not a weights file, damaged"):
        open_encoder(str(path))


def test_a_truncated_file_is_refused(tiny_state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(tiny_state, path)
    whole = path.read_bytes()
    for part in (1, 4, 7):
        path.write_bytes(whole[: len(whole) * part // 8])
        with pytest.raises(WeightsError, match="refused: not a weights file, damaged"):
            open_encoder(str(path))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"a": 1}}, {1: torch.ones(1)}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected (a state dict|tensors by name)"):
        open_encoder(saved(tmp_path / "w.pth", content))


def test_a_missing_file_and_a_wrong_hash_are_refused(tiny_state: State, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*none\.pth; check the path or URI"):
        open_encoder(str(tmp_path / "none.pth"))
    path = saved(tmp_path / "w.pth", tiny_state)
    digest = storage.sha256_of_file(Path(path))
    assert open_encoder(path, sha256_prefix=digest[:6]).identity == f"sha256:{digest[:6]}"
    with pytest.raises(WeightsError, match=rf"starts with {digest[:8]}, expected 000000; fetch"):
        open_encoder(path, sha256_prefix="000000")

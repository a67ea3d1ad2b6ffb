from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tsp_core.model.encoders import build_encoder
from tsp_core.training.modes import arrange_for, kept_statistics, train_mode

CPU = torch.device("cpu")


def gradients(encoder: nn.Module, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    encoder.train()
    encoder(clips).square().mean().backward()
    return {name: value.grad for name, value in encoder.named_parameters()}


@pytest.mark.parametrize("name", ["r2plus1d_tiny", "r2plus1d_18"])
def test_arranging_changes_neither_names_nor_numbers(name: str) -> None:
    torch.manual_seed(0)
    plain = build_encoder(name).double()  # so that rounding does not count
    fast = copy.deepcopy(plain)
    arrange_for(fast, CPU)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    assert any(type(module).__name__ == "_TemporalConv3d" for module in fast.modules())
    clips = torch.randn((2, 3, 4, 32, 32), dtype=torch.float64)
    expected = gradients(plain, clips)
    for key, value in gradients(fast, clips).items():
        torch.testing.assert_close(value, expected[key], atol=1e-9, rtol=1e-7, msg=key)
    for key, value in fast.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], atol=1e-9, rtol=1e-7, msg=key)


def test_bf16_gradients_are_finite() -> None:
    """Some of oneDNN's bf16 weight gradients of (3,1,1) convolutions are not."""
    torch.manual_seed(0)
    encoder = build_encoder("r2plus1d_18")
    arrange_for(encoder, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(encoder, torch.randn(2, 3, 8, 32, 32))
    assert all(value.isfinite().all() for value in found.values())


def test_frozen_batch_norm_is_in_evaluation_mode_alone() -> None:
    encoder = build_encoder("r2plus1d_tiny")
    train_mode(encoder, "frozen")
    kinds = {True: set(), False: set()}
    for module in encoder.modules():
        kinds[module.training].add(type(module))
    assert kinds[False] == {nn.BatchNorm3d}
    train_mode(encoder, "local")
    assert all(module.training for module in encoder.modules())


def test_other_paddings_and_weights_of_other_shapes_stay_as_they_are() -> None:
    """As encoders of extensions may have them."""
    torch.manual_seed(0)
    plain = nn.ModuleDict(
        {
            "time": nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0), padding_mode="replicate"),
            "frame": nn.Conv2d(3, 4, 3),
        }
    )
    arranged = copy.deepcopy(plain)
    arrange_for(arranged, CPU)
    clips, frames = torch.randn(2, 3, 5, 4, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(arranged["time"](clips), plain["time"](clips))
    torch.testing.assert_close(arranged["frame"](frames), plain["frame"](frames))


def test_a_blank_clip_leaves_the_statistics_alone() -> None:
    encoder = build_encoder("r2plus1d_34")  # whose BatchNorm forgets nine tenths at each step
    train_mode(encoder, "local")
    before = copy.deepcopy(encoder.state_dict())
    with kept_statistics(encoder):
        encoder(torch.zeros(1, 3, 4, 16, 16))
    assert all(module.training for module in encoder.modules())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    encoder(torch.zeros(2, 3, 16, 32, 32))
    assert not torch.equal(encoder.stem[1].running_var, before["stem.1.running_var"])

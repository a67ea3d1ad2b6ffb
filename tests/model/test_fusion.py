"""Fused convolutions give what plain ones do, and are made while other threads run theirs."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsp_core.model import fusion
from tsp_core.model.fusion import FusedConv, fold_batch_norms


class Stops(nn.Module):
    """Stops in the midst of being traced until another thread has done something."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)
        self.is_traced, self.may_go_on = Event(), Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.is_traced.set()
        assert self.may_go_on.wait(60)
        return self.norm(self.conv(x))


def test_other_threads_run_their_modules_while_one_is_traced() -> None:
    module, other = Stops().eval(), nn.Sequential(nn.Conv3d(3, 2, 1), nn.ReLU()).eval()
    clips = torch.randn(1, 3, 2, 4, 4)
    expected = other(clips)
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(fold_batch_norms, module)
        assert module.is_traced.wait(60)
        try:
            found = other(clips)
        finally:
            module.may_go_on.set()
        folded = traced.result()
    assert torch.equal(found, expected)
    assert [node.target for node in folded.graph.nodes] == ["x", "conv", "output"]
    assert torch.allclose(folded(clips), module.norm(module.conv(clips)), atol=1e-6)


def test_modules_that_are_traced_at_once_leave_calls_as_they_were() -> None:
    call, lookup = nn.Module.__call__, nn.Module.__getattr__
    modules = [nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)).eval() for _ in range(40)]
    clips = torch.randn(1, 3, 2, 4, 4)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that they do get into each other's way
    try:
        with ThreadPoolExecutor(8) as pool:
            folded = list(pool.map(fold_batch_norms, modules))
    finally:
        sys.setswitchinterval(interval)
    for module, found in zip(modules, folded, strict=True):
        assert torch.allclose(found(clips), module(clips), atol=1e-6)
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is lookup


@pytest.mark.parametrize("has_tiles", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_temporal_convolution_is_the_same_in_the_form_of_any_processor(
    monkeypatch: pytest.MonkeyPatch, has_tiles: bool, stride: int
) -> None:
    """With AMX it stays 3-D in bf16; elsewhere it is 2-D over (time, pixels)."""
    monkeypatch.setattr(fusion, "multiplies_tiles", lambda: has_tiles)
    torch.manual_seed(0)
    conv = nn.Conv3d(24, 8, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0)).eval()
    x = torch.randn(2, 24, 6, 5, 7)
    expected = conv(x)
    shortcut = torch.randn_like(expected)
    fused = FusedConv(conv, torch.bfloat16).to(torch.bfloat16)
    fused.has_relu = True
    clips, added = (
        item.to(torch.bfloat16, memory_format=torch.channels_last_3d) for item in (x, shortcut)
    )
    with torch.inference_mode():
        found, with_shortcut = fused(clips), fused(clips, added)
    assert fused.weight.dim() == (5 if has_tiles else 4)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(found.float(), F.relu(expected), atol=0.02)
    assert torch.allclose(with_shortcut.float(), F.relu(expected + shortcut), atol=0.04)

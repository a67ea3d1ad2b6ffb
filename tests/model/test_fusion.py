"""Encoders are rewritten in one thread while others run theirs."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import torch
from torch import nn

from tsp_core.model.fusion import fold_batch_norms


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

"""How a model runs: train and evaluation mode, memory layout, and the arithmetic of the encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tsp_core.config import Precision
from tsp_core.model.encoders import arrange_channels_last

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Run the encoder in bf16 or fp16; fp32 changes nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def loss_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Scale losses so that fp16 gradients do not vanish; does nothing in fp32 and bf16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def arrange_for(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in the memory layout whose kernels are fastest there.

    The state dict keeps its names and values. On the CPU, temporal (k,1,1) convolutions are
    computed as 2-D ones over (time, pixels): the same sums, a third faster in training, and without
    the fault of oneDNN's bf16 kernels, whose weight gradients of such 3-D convolutions are not
    finite for some shapes.
    """
    model.to(device)
    arrange_channels_last(model)
    if device.type == "cpu":
        for module in model.modules():
            if type(module) is nn.Conv3d and _is_temporal(module):
                module.__class__ = _TemporalConv3d


def train_mode(model: nn.Module, batch_norm: Literal["local", "sync", "frozen"]) -> None:
    """Put a model into train mode; frozen BatchNorm keeps and uses its running statistics."""
    model.train()
    if batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@contextlib.contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm use its running statistics and keep them, as for a clip that is none.

    SyncBatchNorm goes on: the processes wait for each other in it.
    """
    learning = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and not isinstance(module, nn.SyncBatchNorm)
        and module.training
    ]
    for module in learning:
        module.eval()
    try:
        yield
    finally:
        for module in learning:
            module.train()


class _TemporalConv3d(nn.Conv3d):
    """A (k,1,1) convolution of [B, C, L, H, W], computed as a 2-D one of [B, C, L, H*W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, stride, padding = self.weight.squeeze(4), self.stride[0], int(self.padding[0])
        flat = F.conv2d(x.flatten(3), weight, self.bias, (stride, 1), (padding, 0))
        clips: torch.Tensor = flat.unflatten(3, x.shape[3:])
        return clips


def _is_temporal(conv: nn.Conv3d) -> bool:
    across_pixels = (conv.kernel_size[1:], conv.stride[1:], conv.padding[1:], conv.dilation)
    is_plain = conv.groups == 1 and conv.padding_mode == "zeros"
    return is_plain and across_pixels == ((1, 1), (1, 1), (0, 0), (1, 1, 1))

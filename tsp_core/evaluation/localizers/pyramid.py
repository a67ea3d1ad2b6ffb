"""The network of the reference detector: a pyramid of 1-D convolutions with shared heads.

In the line of ActionFormer (Zhang, Wu, Li, ECCV 2022), with convolutional blocks in the place of
local attention: level l sees every 2**l-th row, and classifies and regresses actions of about that
size. Padding is masked after every layer, so that a video's outputs do not depend on what it is
batched with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_PRIOR = 0.01  # probability of a class that an untrained head gives (Lin et al., 2017)


@dataclass(frozen=True, kw_only=True)
class LevelOutput:
    """Outputs of one level of the pyramid.

    Attributes:
        logits: float [B, T, C], one sigmoid per class.
        distances: float [B, T, 2], to the start and the end in units of the level's stride, >= 0.
        mask: bool [B, T], false on padding.
    """

    logits: torch.Tensor
    distances: torch.Tensor
    mask: torch.Tensor


class _ChannelNorm(nn.Module):
    """Layer normalisation over the channels of [B, C, T]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return normed


class _ConvNorm(nn.Module):
    """Convolution over three rows, normalisation, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 3, padding=1)
        self.norm = _ChannelNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x))) * mask


class _Block(nn.Module):
    """Residual block: depthwise convolution over rows, then two layers over channels."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = _ChannelNorm(width)
        self.expand = nn.Conv1d(width, 2 * width, 1)
        self.reduce = nn.Conv1d(2 * width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.reduce(F.gelu(self.expand(self.norm(self.depthwise(x)))))
        mixed: torch.Tensor = (x + self.dropout(y)) * mask
        return mixed


class _Head(nn.Module):
    """Two convolutions and an output, shared by all levels."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_ConvNorm(width, width), _ConvNorm(width, width)])
        self.out = nn.Conv1d(width, size, 3, padding=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        out: torch.Tensor = self.out(x).transpose(1, 2)
        return out


class PyramidNetwork(nn.Module):
    """Maps features of videos to class logits and boundary distances on several levels.

    Args:
        feature_size: F.
        num_classes: C.
        num_levels: Levels of the pyramid; level l has a stride of 2**l rows.
        width: Channels inside.
        dropout: On the features and inside the blocks.
    """

    def __init__(
        self, feature_size: int, num_classes: int, *, num_levels: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.ModuleList([_ConvNorm(feature_size, width), _ConvNorm(width, width)])
        self.stem = nn.ModuleList([_Block(width, 7, dropout) for _ in range(2)])
        self.levels = nn.ModuleList([_Block(width, 5, dropout) for _ in range(num_levels)])
        self.norms = nn.ModuleList([_ChannelNorm(width) for _ in range(num_levels)])
        self.classify = _Head(width, num_classes)
        self.regress = _Head(width, 2)
        self.scales = nn.Parameter(torch.ones(num_levels))
        assert self.classify.out.bias is not None
        nn.init.constant_(self.classify.out.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> list[LevelOutput]:
        """Run on float [B, F, T] and bool [B, T]; level l has ceil(T / 2**l) rows."""
        valid = mask[:, None]
        x = self.dropout(features) * valid
        for layer in (*self.embed, *self.stem):
            x = layer(x, valid)
        outputs = []
        for number, (block, norm) in enumerate(zip(self.levels, self.norms, strict=True)):
            if number > 0:
                x, valid = _halved(x, valid)
            x = block(x, valid)
            y = norm(x) * valid
            distances = F.softplus(self.regress(y, valid) * self.scales[number])
            outputs.append(
                LevelOutput(logits=self.classify(y, valid), distances=distances, mask=valid[:, 0])
            )
        return outputs


def _halved(x: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum over three rows at every second row; row i of the result is row 2i before."""
    pooled = F.max_pool1d(x.masked_fill(~valid, -torch.inf), 3, stride=2, padding=1)
    valid = valid[:, :, ::2]
    return pooled.masked_fill(~valid, 0.0), valid

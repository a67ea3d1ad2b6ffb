"""The networks behind `tsp_core.model.encoders`: torchvision's video ResNets and a tiny one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv2Plus1D,
    Conv3DNoTemporal,
    Conv3DSimple,
    R2Plus1dStem,
    VideoResNet,
)


class VideoEncoder(VideoResNet):
    """torchvision's video ResNet without its classifier: clips [B, 3, L, H, W] to [B, 512].

    The constructor draws the 400-way classifier and then drops it, so that the weights drawn for
    a seed are those of torchvision's constructor.
    """

    feature_size = 512

    def __init__(
        self, conv_makers: list[Any], layers: list[int], stem: Callable[..., nn.Module]
    ) -> None:
        super().__init__(block=BasicBlock, conv_makers=conv_makers, layers=layers, stem=stem)
        self.fc: nn.Module = nn.Identity()  # type: ignore[assignment]


class _ExactMidplanes(Conv2Plus1D):
    """A (2+1)D convolution whose inner width follows from its own width, in and out.

    torchvision computes one inner width per block, from the block's input; the Caffe2 models that
    the IG-65M weights come from compute it per convolution (pytorch/vision issue 1265). The two
    differ in the second convolution of the first block of layers 2 to 4.
    """

    def __init__(
        self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1
    ) -> None:
        midplanes = (in_planes * out_planes * 3 * 3 * 3) // (in_planes * 3 * 3 + 3 * out_planes)
        super().__init__(in_planes, out_planes, midplanes, stride, padding)


def _r2plus1d_34() -> nn.Module:
    encoder = VideoEncoder([_ExactMidplanes] * 4, [3, 4, 6, 3], R2Plus1dStem)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm3d):  # as Caffe2, where the weights were trained
            module.eps = 1e-3
            module.momentum = 0.9
    return encoder


def _r2plus1d_18() -> nn.Module:
    return VideoEncoder([Conv2Plus1D] * 4, [2, 2, 2, 2], R2Plus1dStem)


def _r3d_18() -> nn.Module:
    return VideoEncoder([Conv3DSimple] * 4, [2, 2, 2, 2], BasicStem)


def _mc3_18() -> nn.Module:
    return VideoEncoder([Conv3DSimple, *[Conv3DNoTemporal] * 3], [2, 2, 2, 2], BasicStem)


class _TinyBlock(nn.Module):
    """One (2+1)D convolution with a shortcut."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            Conv2Plus1D(in_planes, out_planes, out_planes, stride), nn.BatchNorm3d(out_planes)
        )
        self.downsample = nn.Sequential(
            nn.Conv3d(in_planes, out_planes, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm3d(out_planes),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.relu(self.conv1(x) + self.downsample(x)))


class TinyEncoder(nn.Module):
    """A small R(2+1)D: clips [B, 3, L, H, W] to [B, 128], with torchvision's module names.

    The stem keeps the resolution, which suits frames of 16 to 64 pixels; layers 2 to 4 halve
    frames and time each.
    """

    feature_size = 128

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 16, kernel_size=(1, 5, 5), padding=(0, 2, 2), bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(inplace=True),
            nn.Conv3d(16, 16, kernel_size=(3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(_TinyBlock(16, 16, stride=1))
        self.layer2 = nn.Sequential(_TinyBlock(16, 32, stride=2))
        self.layer3 = nn.Sequential(_TinyBlock(32, 64, stride=2))
        self.layer4 = nn.Sequential(_TinyBlock(64, self.feature_size, stride=2))
        self.avgpool = nn.AdaptiveAvgPool3d((1, 1, 1))
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode clips, float [B, 3, L, H, W], to features [B, 128]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return cast(torch.Tensor, self.fc(self.avgpool(x).flatten(1)))


BUILDERS: Mapping[str, Callable[[], nn.Module]] = {
    "r2plus1d_34": _r2plus1d_34,
    "r2plus1d_18": _r2plus1d_18,
    "r3d_18": _r3d_18,
    "mc3_18": _mc3_18,
    "r2plus1d_tiny": TinyEncoder,
}

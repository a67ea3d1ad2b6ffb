"""An encoder of one's own: R3D-10, a 3-D ResNet with one block per layer.

Name it in a configuration:

    extensions: [r3d_10.py]
    encoder: {name: r3d_10, weights: "random:0"}
"""

from __future__ import annotations

from torch import nn
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

from tsp_core.model.encoders import EncoderSpec, register_encoder


def build() -> nn.Module:
    """Build the encoder with random weights: clips [B, 3, L, H, W] to features [B, 512]."""
    encoder = VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem)
    encoder.fc = nn.Identity()
    encoder.feature_size = 512
    return encoder


register_encoder(
    EncoderSpec(name="r3d_10", feature_size=512, description="3-D ResNet, one block per layer"),
    build,
)

"""The video encoders by name: what each is, its feature size, and how to build one.

Importing this module does not import torch; the networks are in `tsp_core.model.networks`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tsp_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder: its name in configurations, the size F of its features, and what it is."""

    name: str
    feature_size: int
    description: str


_SPECS = (
    EncoderSpec(
        name="r2plus1d_34",
        feature_size=512,
        description="R(2+1)D-34 as pretrained on IG-65M, the paper's main encoder",
    ),
    EncoderSpec(name="r2plus1d_18", feature_size=512, description="R(2+1)D-18 of torchvision"),
    EncoderSpec(name="r3d_18", feature_size=512, description="R3D-18 of torchvision"),
    EncoderSpec(name="mc3_18", feature_size=512, description="MC3-18 of torchvision"),
    EncoderSpec(
        name="r2plus1d_tiny",
        feature_size=128,
        description="a (2+1)D network of 0.18 million parameters for laptops and tests, for frames "
        "of 16 to 64 pixels and clips of 8 frames or so",
    ),
)

ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""Every encoder by its name; `EncoderName` of `tsp_core.config` lists the same."""


def encoder_spec(name: str) -> EncoderSpec:
    """Look an encoder up.

    Raises:
        WeightsError: No encoder has this name.
    """
    if name not in ENCODERS:
        close = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(ENCODERS)}"
        raise WeightsError(f"encoder: there is no {name!r}; {hint}")
    return ENCODERS[name]


def feature_size(name: str) -> int:
    """Size F of an encoder's features, without building it.

    Raises:
        WeightsError: No encoder has this name.
    """
    return encoder_spec(name).feature_size


def build_encoder(name: str) -> nn.Module:
    """Build an encoder with weights drawn from torch's global generator.

    Its modules are `stem`, `layer1` to `layer4`, `avgpool` and `fc` (the identity), it has an
    attribute `feature_size`, and it maps float clips [B, 3, L, H, W] to features [B, F]. The
    weights are drawn exactly as the torchvision constructor draws them, its classifier included.

    Raises:
        WeightsError: No encoder has this name.
    """
    from tsp_core.model.networks import BUILDERS

    return BUILDERS[encoder_spec(name).name]()

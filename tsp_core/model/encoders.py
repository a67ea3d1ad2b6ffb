"""The video encoders by name: what each is, its feature size, and how to build one.

Importing this module does not import torch; the networks are in `tsp_core.model.networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tsp_core import extensions
from tsp_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn


Builder = Callable[[], "nn.Module"]


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

_specs: dict[str, EncoderSpec] = {spec.name: spec for spec in _SPECS}
_builders: dict[str, Builder] = {}

ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType(_specs)
"""Every encoder by its name; `tsp_core.extensions.ENCODERS` holds the same names."""


def register_encoder(spec: EncoderSpec, build: Builder) -> None:
    """Add an encoder; called by an extension when it is imported.

    Args:
        spec: Its name and the size of its features.
        build: Builds it with weights drawn from torch's global generator; see `build_encoder` for
            what it must be like. Fingerprints know an encoder by its name, so give one whose code
            changes its results another name.

    Raises:
        ConfigError: The name is taken.
    """
    extensions.ENCODERS.add(spec.name, build.__module__)
    _specs[spec.name], _builders[spec.name] = spec, build


def encoder_spec(name: str) -> EncoderSpec:
    """Look an encoder up.

    Raises:
        WeightsError: No encoder has this name.
    """
    try:
        return _specs[extensions.ENCODERS.known(name)]
    except ValueError as error:
        raise WeightsError(f"encoder: {error}") from None


def feature_size(name: str) -> int:
    """Size F of an encoder's features, without building it.

    Raises:
        WeightsError: No encoder has this name.
    """
    return encoder_spec(name).feature_size


def arrange_channels_last(module: nn.Module) -> None:
    """Put the weights of 3-D convolutions into channels-last memory, in which kernels are fastest.

    Weights of other shapes, such as an extension may have, stay as they are.
    """
    import torch

    for parameter in module.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def build_encoder(name: str) -> nn.Module:
    """Build an encoder with weights drawn from torch's global generator.

    Its modules are `stem` (whose learning rate is `pretrain.stem_lr`), any others (`layers_lr`;
    `layer1` to `layer4` and `avgpool` in the project's own) and `fc` (the identity). It has an
    attribute `feature_size`, and it maps float clips [B, 3, L, H, W] to features [B, F]. The
    project's own draw weights exactly as the torchvision constructors do, classifiers included.

    Raises:
        WeightsError: No encoder has this name.
    """
    from tsp_core.model.networks import BUILDERS

    spec = encoder_spec(name)
    return (BUILDERS.get(spec.name) or _builders[spec.name])()

"""Encoders: the weights drawn, the shapes, the names."""

from __future__ import annotations

import pytest
import torch

from tsp_core import extensions
from tsp_core.errors import WeightsError
from tsp_core.model.encoders import ENCODERS, build_encoder, feature_size


def absolute_sum(state: dict[str, torch.Tensor]) -> float:
    return sum(value.double().abs().sum().item() for value in state.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r2plus1d_18", 616929.548344),  # of the released code's encoders, classifier dropped
        ("r3d_18", 383190.397531),
        ("r2plus1d_34", 1260758.473837),
    ],
)
def test_seeded_weights_are_those_of_the_released_code(name: str, expected: float) -> None:
    torch.manual_seed(0)
    assert absolute_sum(build_encoder(name).state_dict()) == pytest.approx(expected, abs=1e-5)


def test_ig65m_encoder_has_its_midplanes_and_batch_norm() -> None:
    with torch.device("meta"):
        encoder = build_encoder("r2plus1d_34")
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    for layer, width, inner in ((2, 128, 288), (3, 256, 576), (4, 512, 1152)):
        assert shapes[f"layer{layer}.0.conv2.0.0.weight"] == (inner, width, 1, 3, 3)
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.9)}


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "mc3_18", "r2plus1d_tiny"])
def test_other_encoders_have_the_default_batch_norm(name: str) -> None:
    with torch.device("meta"):
        norms = [m for m in build_encoder(name).modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_maps_clips_to_features(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name).eval()
        features = encoder(torch.empty(2, 3, 8, 32, 32))
    assert features.shape == (2, feature_size(name))
    assert encoder.feature_size == feature_size(name)
    names = [key for key, _ in encoder.named_children()]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]


@pytest.mark.parametrize(("length", "side"), [(1, 16), (8, 16), (8, 33), (16, 64)])
def test_tiny_takes_small_clips_and_stays_small(length: int, side: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("r2plus1d_tiny").eval()
    with torch.inference_mode():
        features = encoder(torch.randn(2, 3, length, side, side))
    assert features.shape == (2, 128)
    assert features.isfinite().all()
    assert sum(p.numel() for p in encoder.parameters()) < 200_000


def test_the_configuration_knows_the_same_encoders() -> None:
    assert set(ENCODERS) == set(extensions.ENCODERS.builtin)


def test_an_unknown_encoder_is_refused_by_name() -> None:
    with pytest.raises(
        WeightsError, match="there is no encoder 'r2plus1d_43'; did you mean 'r2plus1d_34'"
    ):
        feature_size("r2plus1d_43")
    with pytest.raises(WeightsError, match="known are r2plus1d_34, r2plus1d_18"):
        build_encoder("slowfast")

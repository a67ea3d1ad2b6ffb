"""Prepared encoders give the features of the plain ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tsp_core.errors import ConfigError
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.model.weights import open_encoder


def trained_looking(name: str) -> nn.Module:
    """An encoder whose batch normalisation has statistics, as a trained one's has."""
    encoder = open_encoder("random:0", name=name).encoder
    generator = torch.Generator().manual_seed(1)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 1.5, generator=generator)
            for values in (module.bias, module.running_mean):
                values.data.normal_(0, 0.2, generator=generator)
    return encoder


@pytest.mark.parametrize(
    "name", ["r2plus1d_tiny", "r2plus1d_18", "r3d_18", "mc3_18", "r2plus1d_34"]
)
def test_features_stay_within_the_tolerances(name: str) -> None:
    encoder = trained_looking(name)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain = encoder(clips)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    exact = forward_features(prepare_for_inference(encoder, device="cpu", precision="fp32"), clips)
    assert ((exact - plain).norm(dim=1) / plain.norm(dim=1)).max() <= 1e-5
    coarse = forward_features(prepare_for_inference(encoder, device="cpu", precision="bf16"), clips)
    assert coarse.dtype == exact.dtype == torch.float32
    assert torch.cosine_similarity(coarse, plain).min() >= 0.999
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "r2plus1d_34"])
def test_features_are_those_of_the_released_code(name: str, shared: Path) -> None:
    reference = shared / "reference"
    with np.load(reference / "released_code_clip3_v_ZNVhz7ctTq0.npz") as file:
        clip = torch.from_numpy(file[file.files[0]])[None]
    with np.load(reference / "released_code_features.npz") as file:
        expected = torch.from_numpy(file[f"v_ZNVhz7ctTq0/{name}/stride16"][3])
    encoder = open_encoder("random:0", name=name).encoder
    exact, coarse = (
        forward_features(prepare_for_inference(encoder, device="cpu", precision=precision), clip)[0]
        for precision in ("fp32", "bf16")
    )
    assert (exact - expected).norm() / expected.norm() <= 1e-5
    assert torch.cosine_similarity(coarse, expected, dim=0) >= 0.999


def test_batch_norm_is_gone_and_temporal_convolutions_are_flat() -> None:
    prepared = prepare_for_inference(trained_looking("r2plus1d_18"), device="cpu", precision="fp32")
    modules = list(prepared.module.modules())
    assert not any(isinstance(module, nn.BatchNorm3d) for module in modules)
    kernels = {m.kernel_size for m in modules if isinstance(m, nn.Conv3d)}
    assert kernels == {(1, 7, 7), (1, 3, 3), (1, 1, 1)}


@pytest.mark.parametrize(("batch", "length", "side"), [(1, 8, 16), (3, 5, 17), (1, 1, 16)])
def test_any_clip_shape_works(batch: int, length: int, side: int) -> None:
    encoder = trained_looking("r2plus1d_tiny")
    clips = torch.randn(batch, 3, length, side, side)
    prepared = prepare_for_inference(encoder, device="cpu", precision="fp32")
    with torch.inference_mode():
        assert torch.allclose(forward_features(prepared, clips), encoder(clips), atol=1e-5)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="precision: 'fp16' needs a GPU; use 'bf16' or 'fp32'"):
        prepare_for_inference(trained_looking("r2plus1d_tiny"), device="cpu", precision="fp16")

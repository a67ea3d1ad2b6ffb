"""The features of the method's released code, on real videos (shared reference)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tsp_core.config import Precision
from tsp_core.features.quick import extract_files

KEYS = (
    "demo/r3d_18/stride16",
    "demo/r2plus1d_18/stride16",
    "v_ZNVhz7ctTq0/r3d_18/stride16",
    "v_ZNVhz7ctTq0/r3d_18/stride4",
    "v_ZNVhz7ctTq0/r2plus1d_18/stride16",
    "v_ZNVhz7ctTq0/r2plus1d_34/stride16",
)


def compare(shared: Path, out: Path, key: str, precision: Precision) -> tuple[float, float]:
    """Largest relative error and smallest cosine of all clips, against the reference."""
    name, encoder, stride = key.split("/")
    report = extract_files(
        [str(shared / "data" / "clips" / f"{name}.mp4")],
        checkpoint="random:0",
        encoder=encoder,
        stride=int(stride.removeprefix("stride")),
        precision=precision,
        out=str(out),
        device="cpu",
        batch_size=4,
    )
    assert not report.quarantined
    with np.load(shared / "reference" / "released_code_features.npz") as reference:
        assert set(reference) == set(KEYS)
        expected = reference[key]
    found = np.load(out / f"{name}.npy")
    assert found.shape == expected.shape
    norm = np.linalg.norm(expected, axis=1)
    error = np.linalg.norm(found - expected, axis=1) / norm
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / norm
    return float(error.max()), float(cosine.min())


@pytest.mark.shared
@pytest.mark.parametrize(
    "key", [KEYS[0], *(pytest.param(key, marks=pytest.mark.slow) for key in KEYS[1:])]
)
def test_fp32_features_are_the_released_codes(shared: Path, tmp_path: Path, key: str) -> None:
    error, _ = compare(shared, tmp_path, key, "fp32")
    assert error <= 1e-5  # promised: 1e-4; seen: 3e-7


@pytest.mark.shared
def test_bf16_features_point_the_same_way(shared: Path, tmp_path: Path) -> None:
    _, cosine = compare(shared, tmp_path, "demo/r3d_18/stride16", "bf16")
    assert cosine >= 0.999

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.features.samples import context
from tsp_core.config import ClipConfig
from tsp_core.features.recipes.base import evenly_rescaled, resample
from tsp_core.features.rows import nominal_centers


@pytest.mark.parametrize(("num_rows", "size"), [(1, 100), (2, 100), (13, 100), (250, 100), (7, 7)])
def test_clips_that_do_not_overlap_are_rescaled_as_the_author_prescribes(
    num_rows: int, size: int
) -> None:
    features = np.random.default_rng(0).normal(size=(num_rows, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(features.T[None]), size=size, mode="linear", align_corners=False
    )[0].T
    found = evenly_rescaled(features, size, context())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_a_signal_of_time_keeps_its_times(stride: int) -> None:
    clip = ClipConfig()
    centers = nominal_centers(40, clip, stride)
    features = centers[:, None].astype(np.float32)
    times = np.linspace(centers[0], centers[-1], 77)
    found = resample(features, times, context(stride=stride))
    np.testing.assert_allclose(found[:, 0], times, atol=1e-5)


def test_features_are_constant_beyond_the_ends() -> None:
    features = np.array([[1.0], [2.0]], dtype=np.float32)
    found = resample(features, np.array([-5.0, 0.0, 99.0]), context())
    assert found[:, 0].tolist() == [1.0, 1.0, 2.0]

"""The checkpoint's own heads on rows of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsp_core.evaluation.row_logits import _affine


class OnAGpu:
    """Stands for a tensor on a GPU, which turns to an array by way of the CPU alone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def detach(self) -> OnAGpu:
        return self

    def float(self) -> OnAGpu:
        return self

    def cpu(self) -> torch.Tensor:
        return self._tensor.detach()

    def numpy(self) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_a_head_that_is_on_a_gpu_is_taken_from_there() -> None:
    head = torch.nn.Linear(5, 3)
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    expected = head(torch.from_numpy(features)).detach().numpy()

    class Head:
        weight, bias = OnAGpu(head.weight), OnAGpu(head.bias)

    assert np.allclose(_affine(Head())(features), expected, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_head_on_the_gpu_of_this_machine() -> None:
    head = torch.nn.Linear(5, 3)
    features = np.ones((2, 5), dtype=np.float32)
    expected = _affine(head)(features)
    assert np.allclose(_affine(head.to("cuda"))(features), expected, atol=1e-6)

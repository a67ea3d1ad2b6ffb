"""What the model tests share: a tiny encoder's state, once per session."""

from __future__ import annotations

import pytest
import torch

from tsp_core.model.weights import open_encoder


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, torch.Tensor]:
    return dict(open_encoder("random:7", name="r2plus1d_tiny").encoder.state_dict())


@pytest.fixture
def clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 8, 16, 16, generator=generator)

"""The heads: shapes, names, initial values, the global video feature."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tsp_core.errors import GvfError
from tsp_core.model.heads import Heads, TSPModel
from tsp_core.model.weights import open_encoder


def model(heads: Heads, *, use_gvf: bool, num_classes: int = 5) -> TSPModel:
    encoder = open_encoder("random:0", name="r2plus1d_tiny").encoder
    return TSPModel(
        encoder,
        encoder_name="r2plus1d_tiny",
        num_classes=num_classes,
        heads=heads,
        use_gvf=use_gvf,
    ).eval()


@pytest.mark.parametrize(
    ("heads", "use_gvf", "expected"),
    [
        ("tsp", True, {"fc1.weight": (5, 128), "fc2.weight": (2, 256)}),
        ("tsp", False, {"fc1.weight": (5, 128), "fc2.weight": (2, 128)}),
        ("tac", True, {"fc.weight": (5, 128)}),
        ("tac", False, {"fc.weight": (5, 128)}),
        ("region", True, {"fc.weight": (2, 256)}),
        ("region", False, {"fc.weight": (2, 128)}),
    ],
)
def test_heads_have_the_released_names_and_shapes(
    heads: Heads, use_gvf: bool, expected: dict[str, tuple[int, int]], clips: torch.Tensor
) -> None:
    tsp = model(heads, use_gvf=use_gvf)
    shapes = {
        key: tuple(value.shape)
        for key, value in tsp.state_dict().items()
        if not key.startswith("features.") and key.endswith("weight")
    }
    assert shapes == expected
    outputs = tsp(clips, torch.zeros(2, 128))
    assert outputs.features.shape == (2, 128)
    actions = None if outputs.action_logits is None else outputs.action_logits.shape
    regions = None if outputs.region_logits is None else outputs.region_logits.shape
    assert actions == (None if heads == "region" else (2, 5))
    assert regions == (None if heads == "tac" else (2, 2))


def test_logits_are_those_of_the_paper(clips: torch.Tensor) -> None:
    tsp = model("tsp", use_gvf=True)
    gvf = torch.randn(2, 128)
    with torch.no_grad():
        tsp.fc1.bias += 1
        features, action, region = tsp(clips, gvf)
        weights = dict(tsp.named_parameters())
        assert torch.equal(features, tsp.features(clips))
        assert torch.allclose(action, features @ weights["fc1.weight"].T + 1, atol=1e-6)
        joined = torch.cat([features, gvf], dim=1)  # the local feature first
        assert torch.allclose(region, joined @ weights["fc2.weight"].T, atol=1e-6)


def test_under_autocast_the_heads_keep_their_precision(clips: torch.Tensor) -> None:
    tsp = model("tsp", use_gvf=True)
    gvf = torch.randn(2, 128)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features, action, region = tsp(clips, gvf)
    weights = dict(tsp.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(action, features.float() @ weights["fc1.weight"].T)
        joined = torch.cat([features.float(), gvf], dim=1)
        torch.testing.assert_close(region, joined @ weights["fc2.weight"].T)
    assert action.dtype == region.dtype == torch.float32


def test_weights_are_drawn_narrow_in_a_fixed_order() -> None:
    encoder = open_encoder("random:0", name="r2plus1d_tiny").encoder
    torch.manual_seed(3)
    tsp = TSPModel(
        encoder, encoder_name="r2plus1d_tiny", num_classes=200, heads="tsp", use_gvf=True
    )
    torch.manual_seed(3)
    first = nn.Linear(128, 200)
    nn.init.normal_(first.weight, 0, 0.01)
    second = nn.Linear(256, 2)
    nn.init.normal_(second.weight, 0, 0.01)
    assert tsp.action_head is not None
    assert tsp.region_head is not None
    assert torch.equal(tsp.action_head.weight, first.weight)
    assert torch.equal(tsp.region_head.weight, second.weight)
    assert tsp.action_head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not tsp.action_head.bias.any()
    assert not tsp.region_head.bias.any()


@pytest.mark.parametrize("gvf", [None, torch.zeros(2, 64), torch.zeros(1, 128)])
def test_a_missing_or_misshapen_gvf_is_refused(
    gvf: torch.Tensor | None, clips: torch.Tensor
) -> None:
    with pytest.raises(GvfError, match=r"needs one global .* per clip, shape \(2, 128\)"):
        model("tsp", use_gvf=True)(clips, gvf)
    assert model("tsp", use_gvf=False)(clips, gvf).region_logits.shape == (2, 2)


def test_an_action_head_needs_a_class() -> None:
    with pytest.raises(ValueError, match="num_classes: 0: an action head needs at least one"):
        model("tac", use_gvf=False, num_classes=0)

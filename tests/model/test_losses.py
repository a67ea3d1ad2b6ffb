"""The losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tsp_core.model.heads import HeadOutputs
from tsp_core.model.losses import tsp_losses

ACTION = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0], [5.0, 1.0, 1.0]])
ACTION_LABELS = torch.tensor([1, 0, -1])
REGION = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
REGION_LABELS = torch.tensor([0, 0, 1])
ACTION_LOSS = (math.log(3) + math.log(2)) / 2  # -log(1/3) and -log(2/4); the third has no label
REGION_LOSS = (math.log(2) + 2 * math.log(4 / 3)) / 3


def outputs(action: torch.Tensor | None, region: torch.Tensor | None) -> HeadOutputs:
    return HeadOutputs(features=torch.zeros(3, 4), action_logits=action, region_logits=region)


def test_both_heads_by_hand() -> None:
    losses = tsp_losses(
        outputs(ACTION, REGION), ACTION_LABELS, REGION_LABELS, alpha_action=0.5, alpha_region=2.0
    )
    assert losses.action is not None
    assert losses.region is not None
    assert losses.action.item() == pytest.approx(ACTION_LOSS, rel=1e-6)
    assert losses.region.item() == pytest.approx(REGION_LOSS, rel=1e-6)
    assert losses.total.item() == pytest.approx(0.5 * ACTION_LOSS + 2 * REGION_LOSS, rel=1e-6)


def test_one_head_alone() -> None:
    labels = (ACTION_LABELS, REGION_LABELS)
    tac = tsp_losses(outputs(ACTION, None), *labels, alpha_action=1, alpha_region=1)
    assert tac.region is None
    assert tac.total.item() == pytest.approx(ACTION_LOSS, rel=1e-6)
    region = tsp_losses(outputs(None, REGION), *labels, alpha_action=1, alpha_region=1)
    assert region.action is None
    assert region.total.item() == pytest.approx(REGION_LOSS, rel=1e-6)


def test_gradients_are_those_of_pytorch_and_none_where_ignored() -> None:
    ours, theirs = ACTION.clone().requires_grad_(), ACTION.clone().requires_grad_()
    losses = tsp_losses(
        outputs(ours, None), ACTION_LABELS, REGION_LABELS, alpha_action=1, alpha_region=1
    )
    losses.total.backward()
    torch.nn.CrossEntropyLoss(ignore_index=-1)(theirs, ACTION_LABELS).backward()
    assert ours.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-7)
    assert not ours.grad[2].any()


def test_a_batch_without_foreground_has_no_action_loss() -> None:
    logits = ACTION.clone().requires_grad_()
    background = torch.full((3,), -1)
    assert torch.nn.CrossEntropyLoss(ignore_index=-1)(logits, background).isnan()
    losses = tsp_losses(
        outputs(logits, REGION), background, REGION_LABELS, alpha_action=1, alpha_region=1
    )
    losses.total.backward()
    assert losses.action is not None
    assert losses.action.item() == 0
    assert losses.total.item() == pytest.approx(REGION_LOSS, rel=1e-6)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_logits_give_float32_losses() -> None:
    losses = tsp_losses(
        outputs(ACTION.bfloat16(), REGION.half()),
        ACTION_LABELS,
        REGION_LABELS,
        alpha_action=1,
        alpha_region=1,
    )
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == pytest.approx(ACTION_LOSS + REGION_LOSS, rel=1e-2)

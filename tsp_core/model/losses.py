"""The losses of the heads and their weighted sum (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tsp_core.model.heads import HeadOutputs

IGNORED_LABEL = -1
"""The action label of background clips: no loss, no gradient."""


@dataclass(frozen=True)
class Losses:
    """The total loss to minimise and its parts, float32 scalars; None where there is no head."""

    total: torch.Tensor
    action: torch.Tensor | None
    region: torch.Tensor | None


def tsp_losses(
    outputs: HeadOutputs,
    action_labels: torch.Tensor,
    region_labels: torch.Tensor,
    *,
    alpha_action: float,
    alpha_region: float,
) -> Losses:
    """Compute `alpha_action * CE(action) + alpha_region * CE(region)` over the heads there are.

    Each cross-entropy is the mean over the clips that have a label. A batch without any labelled
    clip has the loss 0 (and zero gradients), where PyTorch's mean over nothing, as the released
    code takes it, is NaN and would destroy the weights.

    Args:
        outputs: Of a `TSPModel`.
        action_labels: int64 [B]; -1 (background) is ignored.
        region_labels: int64 [B]; 0 action, 1 no action; -1 is ignored.
        alpha_action: Weight of the action loss.
        alpha_region: Weight of the region loss.
    """
    action = _mean_cross_entropy(outputs.action_logits, action_labels)
    region = _mean_cross_entropy(outputs.region_logits, region_labels)
    total = outputs.features.new_zeros((), dtype=torch.float32)
    if action is not None:
        total = total + alpha_action * action
    if region is not None:
        total = total + alpha_region * region
    return Losses(total=total, action=action, region=region)


def _mean_cross_entropy(logits: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor | None:
    if logits is None:
        return None
    summed = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return summed / (labels != IGNORED_LABEL).sum().clamp(min=1)

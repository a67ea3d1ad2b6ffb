"""Sums over clips from which an epoch's losses and accuracies follow, exactly, in any grouping."""

from __future__ import annotations

from typing import NamedTuple

import torch

from tsp_core.config import PretrainConfig
from tsp_core.model.heads import HeadOutputs
from tsp_core.model.losses import IGNORED_LABEL, Losses
from tsp_core.training.loader import Batch


class Sums(NamedTuple):
    """Sums over clips; those of several batches or processes add up.

    Attributes:
        clips: Clips that were read.
        failed: Clips that could not be read.
        action_clips: Clips with an action label, for models with an action head.
        action_loss: Sum of their cross-entropies.
        action_correct: How many were classified correctly.
        region_clips: Clips with a region label, for models with a region head.
        region_loss: Sum of their cross-entropies.
        region_correct: How many were classified correctly.
    """

    clips: float = 0.0
    failed: float = 0.0
    action_clips: float = 0.0
    action_loss: float = 0.0
    action_correct: float = 0.0
    region_clips: float = 0.0
    region_loss: float = 0.0
    region_correct: float = 0.0

    def plus(self, other: Sums) -> Sums:
        """Add up field by field."""
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def batch_sums(outputs: HeadOutputs, losses: Losses, batch: Batch) -> torch.Tensor:
    """Sums of one batch as float64 [8], in the order of `Sums`, on the outputs' device."""
    action = _head_sums(outputs.action_logits, losses.action, batch.action_labels)
    region = _head_sums(outputs.region_logits, losses.region, batch.region_labels)
    labelled = (batch.region_labels != IGNORED_LABEL).sum().double()
    failed = torch.full_like(labelled, float(len(batch.failed)))
    return torch.stack([labelled, failed, *action, *region]).detach()


def add_counts(
    counts: torch.Tensor, outputs: HeadOutputs, batch: Batch, videos: torch.Tensor
) -> None:
    """Count a batch's clips by video, to compare epochs on videos that both could read.

    Args:
        counts: float64 [V, 4], is added to: clips with an action label, those classified
            correctly, and the same of the region.
        outputs: Of the batch, whose clips were read.
        batch: With labels, int64 [B].
        videos: int64 [B], the row of each clip's video.
    """
    heads = (
        (outputs.action_logits, batch.action_labels),
        (outputs.region_logits, batch.region_labels),
    )
    columns = [column.double() for pair in heads for column in _labelled_and_correct(*pair)]
    counts.index_add_(0, videos, torch.stack(columns, dim=1))


def accuracy_of_counts(counts: torch.Tensor) -> float:
    """Mean accuracy of the heads by counts of clips, [V, 4]; see `mean_accuracy`."""
    action_clips, action_correct, region_clips, region_correct = counts.sum(dim=0).tolist()
    return mean_accuracy(
        Sums(
            action_clips=action_clips,
            action_correct=action_correct,
            region_clips=region_clips,
            region_correct=region_correct,
        )
    )


def combine_losses(sums: Sums, pretrain: PretrainConfig) -> dict[str, float]:
    """Mean loss per head and their weighted sum; heads without a labelled clip are left out."""
    values: dict[str, float] = {}
    total = 0.0
    if sums.action_clips:
        values["loss_action"] = sums.action_loss / sums.action_clips
        total += pretrain.alpha_action * values["loss_action"]
    if sums.region_clips:
        values["loss_region"] = sums.region_loss / sums.region_clips
        total += pretrain.alpha_region * values["loss_region"]
    return {"loss": total, **values}


def head_accuracies(sums: Sums) -> dict[str, float]:
    """Fraction of clips classified correctly, per head that saw a labelled clip."""
    values: dict[str, float] = {}
    if sums.action_clips:
        values["accuracy_action"] = sums.action_correct / sums.action_clips
    if sums.region_clips:
        values["accuracy_region"] = sums.region_correct / sums.region_clips
    return values


def mean_accuracy(sums: Sums) -> float:
    """Mean of the heads' accuracies, by which the best epoch is chosen."""
    accuracies = head_accuracies(sums).values()
    return sum(accuracies) / max(len(accuracies), 1)


def epoch_values(sums: Sums, pretrain: PretrainConfig) -> dict[str, float]:
    """All figures of one epoch's phase, by metric name."""
    return {
        **combine_losses(sums, pretrain),
        **head_accuracies(sums),
        "accuracy_mean": mean_accuracy(sums),
        "num_clips": sums.clips,
        "num_failed_clips": sums.failed,
    }


def _head_sums(
    logits: torch.Tensor | None, mean_loss: torch.Tensor | None, labels: torch.Tensor
) -> list[torch.Tensor]:
    """Labelled clips, the sum of their losses, and how many are right, as float64 scalars."""
    if logits is None or mean_loss is None:
        return [torch.zeros((), dtype=torch.float64, device=labels.device)] * 3
    labelled, correct = _labelled_and_correct(logits, labels)
    count = labelled.sum().double()
    return [count, mean_loss.double() * count, correct.sum().double()]


def _labelled_and_correct(
    logits: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which clips count for a head, and which of them it classifies correctly, bool [B] each."""
    if logits is None:
        none = torch.zeros_like(labels, dtype=torch.bool)
        return none, none
    labelled = labels != IGNORED_LABEL
    return labelled, (logits.argmax(dim=1) == labels) & labelled

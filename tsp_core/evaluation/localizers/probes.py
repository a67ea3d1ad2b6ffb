"""Linear probes: what a linear classifier can read from frozen features.

Multinomial logistic regression on standardised features, classes weighted to count equally. The
problem is convex and solved by full-batch L-BFGS from zero, so the result needs no seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.heads import REGION_LABELS, HeadScore, HeadTally, score_head
from tsp_core.evaluation.localizers.sequences import (
    FeatureSequence,
    by_video,
    label_rows,
    label_videos,
    stacked,
)
from tsp_core.evaluation.roc import region_auc


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """A linear classifier on standardised features.

    Attributes:
        mean: float32 [F], subtracted from the features.
        scale: float32 [F], divides them.
        weight: float32 [C, F].
        bias: float32 [C].
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify features [N, F]; returns float32 [N, C]."""
        return np.asarray((features - self.mean) / self.scale @ self.weight.T + self.bias)


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """How well probes that were trained on one set of videos read another.

    Attributes:
        action: Rows within actions, by class; None without such rows.
        region: All rows, by action or no action; None without rows.
        region_auc: Area under the ROC curve of the region probe; None when one region is absent.
    """

    action: HeadScore | None
    region: HeadScore | None
    region_auc: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "action": self.action.as_json() if self.action else None,
            "region": self.region.as_json() if self.region else None,
            "region_auc": self.region_auc,
        }


@dataclass(frozen=True, kw_only=True)
class Probes:
    """An action and a region probe; a probe is None when training had fewer than two classes."""

    action: LinearProbe | None
    region: LinearProbe | None


def train_probes(
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    num_classes: int,
    ambiguous: Instances | None = None,
) -> Probes:
    """Train both probes on the rows of videos.

    Args:
        sequences: Features by video.
        actions: Annotated actions of these videos.
        num_classes: Action classes.
        ambiguous: Segments whose rows are left out.
    """
    features, labels = stacked(sequences, label_videos(sequences, actions, ambiguous=ambiguous))
    return Probes(
        action=_trained(features, labels.label_indices, num_classes),
        region=_trained(features, labels.regions, len(REGION_LABELS)),
    )


def score_probes(
    probes: Probes,
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    classes: Sequence[str],
    ambiguous: Instances | None = None,
) -> ProbeScores:
    """Score probes on the rows of other videos.

    Args:
        probes: From `train_probes`.
        sequences: Features by video.
        actions: Annotated actions of these videos.
        classes: Names in index order.
        ambiguous: Segments whose rows are left out.
    """
    of_video, unclear = by_video(actions), by_video(ambiguous) if ambiguous is not None else {}
    actions_tally = HeadTally(classes)
    margins: list[NDArray[np.float32]] = []  # two numbers a row, which the AUC needs all at once
    regions: list[NDArray[np.int64]] = []
    for name in sorted(sequences):
        sequence = sequences[name]  # read once, and not kept: a subset may not fit into memory
        labels = label_rows(sequence.t_center, of_video.get(name), ambiguous=unclear.get(name))
        if probes.action is not None:
            actions_tally.add(probes.action.logits(sequence.features), labels.label_indices)
        if probes.region is not None:
            margins.append(probes.region.logits(sequence.features))
            regions.append(labels.regions)
    region = auc = None
    if margins:
        logits, truth = np.concatenate(margins), np.concatenate(regions)
        region, auc = score_head(logits, truth, REGION_LABELS), region_auc(logits, truth)
    return ProbeScores(action=actions_tally.score(), region=region, region_auc=auc)


def train_linear_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    l2: float = 1e-3,
    max_iterations: int = 200,
    max_rows: int = 50_000,
) -> LinearProbe:
    """Train one probe.

    Args:
        features: float32 [N, F].
        labels: int64 [N] in [0, num_classes); classes without rows are never predicted.
        num_classes: C.
        l2: Weight of half the squared norm of the weights against the mean loss.
        max_iterations: Of L-BFGS; it stops earlier when converged.
        max_rows: Of more rows, this many are used, evenly spaced.

    Raises:
        ValueError: There are no rows, or a label is outside the range.
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels: {len(labels)} rows with values {np.unique(labels).tolist()}; give at least "
            f"one row and labels from 0 to {num_classes - 1}"
        )
    rows = np.unique(
        np.linspace(0, len(labels) - 1, min(len(labels), max_rows)).round().astype(int)
    )
    features, labels = features[rows], labels[rows]
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0).astype(np.float32)
    x = torch.from_numpy(((features - mean) / scale).astype(np.float32))
    counts = np.bincount(labels, minlength=num_classes)
    class_weight = np.divide(1.0, counts, out=np.zeros(num_classes), where=counts > 0)
    weight, bias = _fit(
        x, torch.from_numpy(labels), torch.from_numpy(class_weight).float(), l2, max_iterations
    )
    bias[counts == 0] = -1e4
    return LinearProbe(mean=mean, scale=scale, weight=weight, bias=bias)


def _trained(
    features: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> LinearProbe | None:
    known = labels >= 0
    if len(np.unique(labels[known])) < 2:
        return None
    return train_linear_probe(features[known], labels[known], num_classes)


def _fit(
    x: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor,
    l2: float,
    max_iterations: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Minimise the weighted mean cross entropy plus the penalty; returns weight and bias."""
    weight = torch.zeros(len(class_weight), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(class_weight), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(x @ weight.T + bias, labels, weight=class_weight)
        loss = loss + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach().numpy(), bias.detach().numpy()

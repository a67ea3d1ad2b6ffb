"""What heads and probes say of rows of features: their classes, and action or background."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsp_core.evaluation.localizers.probes import Probes
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.evaluation.material import Material
from tsp_core.features.gvf import GvfTable
from tsp_core.model.heads import TSPModel

Source = Literal["head", "probe", "only class", "detector"]
OfFeatures = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Logits of features: float32 [N, F] to [N, C] or [N, 2]."""
RowLogits = Callable[[FeatureSequence], NDArray[np.float32]]
"""Logits of the rows of a video, float32 [N, C] or [N, 2]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsOnRows:
    """The checkpoint's heads as far as they fit the data set.

    Attributes:
        action: Logits of classes; None without a fitting action head.
        region: Logits of action and no action; None without a fitting region head.
        videos: Videos that the region head can speak for; None for all.
    """

    action: RowLogits | None = None
    region: RowLogits | None = None
    videos: frozenset[str] | None = None

    def silent_on(self, videos: Iterable[str]) -> frozenset[str]:
        """Those of the videos that the region head cannot speak for."""
        return frozenset() if self.videos is None else frozenset(videos) - self.videos


def heads_on_rows(
    model: TSPModel | None, *, classes_fit: bool, gvf: GvfTable | None
) -> HeadsOnRows:
    """Take a checkpoint's heads to run on exported features.

    Args:
        model: The checkpoint; None without heads.
        classes_fit: Whether its action head is for the classes of the data set.
        gvf: Global video features; a region head that needs them is left out without.
    """
    if model is None:
        return HeadsOnRows()
    action = None
    if model.action_head is not None and classes_fit:
        action = _per_row(_affine(model.action_head))
    if model.region_head is None:
        return HeadsOnRows(action=action)
    region = _affine(model.region_head)
    if not model.use_gvf:
        return HeadsOnRows(action=action, region=_per_row(region))
    if gvf is None:
        return HeadsOnRows(action=action)

    def with_gvf(sequence: FeatureSequence) -> NDArray[np.float32]:
        pooled = np.tile(gvf.lookup(sequence.video), (len(sequence), 1))
        return region(np.concatenate([sequence.features, pooled], axis=1))

    return HeadsOnRows(action=action, region=with_gvf, videos=frozenset(gvf.names))


def row_classes(heads: HeadsOnRows, probes: Probes, material: Material) -> tuple[RowLogits, Source]:
    """What names the classes of rows: the head, else the probe, else the only class there is."""
    if heads.action is not None:
        return heads.action, "head"
    if probes.action is not None:
        return _per_row(probes.action.logits), "probe"
    only = int(np.bincount(material.training.actions.label_indices).argmax())
    logits = np.full(len(material.classes), -1e4, dtype=np.float32)
    logits[only] = 0.0
    return lambda sequence: np.tile(logits, (len(sequence), 1)), "only class"


def row_regions(heads: HeadsOnRows, probes: Probes) -> tuple[RowLogits, Source] | tuple[None, None]:
    """What tells action from background: the head, else the probe, else nothing."""
    if heads.region is not None:
        return heads.region, "head"
    if probes.region is not None:
        return _per_row(probes.region.logits), "probe"
    return None, None


def _affine(layer: torch.nn.Linear) -> OfFeatures:
    weight, bias = (item.detach().float().cpu().numpy() for item in (layer.weight, layer.bias))
    return lambda features: np.asarray(features @ weight.T + bias)


def _per_row(of_features: OfFeatures) -> RowLogits:
    return lambda sequence: of_features(sequence.features)

"""Runs the localizers on frozen features: probes, the checkpoint's own heads, the detector.

All three give detections in the videos of the evaluated subset. A localizer that the data or the
checkpoint does not allow is left out, and a note says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsp_core.config import EvaluateConfig, LocalizerName
from tsp_core.evaluation.detection.instances import Detections, concatenate
from tsp_core.evaluation.localizers.detector import DetectorConfig, train_detector
from tsp_core.evaluation.localizers.grouping import head_sequence, localize_by_heads
from tsp_core.evaluation.localizers.probes import (
    Probes,
    ProbeScores,
    score_probes,
    train_probes,
)
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.evaluation.material import Material, Part
from tsp_core.features.gvf import GvfTable
from tsp_core.model.heads import TSPModel

OnProgress = Callable[[str, int, int], None]
"""Called with a unit, how many of them are done, and all."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Localized:
    """What one localizer detected.

    Attributes:
        detections: In the videos of the evaluated subset.
        classes_from: What names the classes.
        actionness_from: What tells action from background.
        num_parameters: That were trained on the features; None where nothing was.
    """

    detections: Detections
    classes_from: Source
    actionness_from: Source
    num_parameters: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """What all localizers detected.

    Attributes:
        localized: By name of the localizer.
        probes: How the probes classify the rows of the evaluated subset; None when not trained.
        notes: What was left out, as sentences.
    """

    localized: dict[LocalizerName, Localized]
    probes: ProbeScores | None
    notes: tuple[str, ...]


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


def localize(
    material: Material, heads: HeadsOnRows, config: EvaluateConfig, on_progress: OnProgress
) -> Localization:
    """Train and run the localizers of a configuration.

    Torch works on one thread here, so that the figures do not depend on the number of cores.

    Args:
        material: Features and actions.
        heads: Of the checkpoint.
        config: Which localizers, and their budget.
        on_progress: Called as the work goes on.
    """
    wanted = tuple(dict.fromkeys(config.localizers))
    obstacle = _obstacle(material, config)
    if not wanted or obstacle:
        return Localization(localized={}, probes=None, notes=(obstacle,) if wanted else ())
    notes: list[str] = []
    localized: dict[LocalizerName, Localized] = {}
    with _one_thread():
        probes = train_probes(
            material.training.sequences,
            material.training.actions,
            num_classes=len(material.classes),
            ambiguous=material.training.ambiguous,
        )
        for name in wanted:
            if name == "detector":
                localized[name] = _by_detector(material, config, on_progress)
                continue
            own = heads if name == "heads" else HeadsOnRows()
            found = _by_rows(name, own, probes, material, notes, on_progress)
            if found is not None:
                localized[name] = found
        scores = _probe_scores(probes, material)
    return Localization(localized=localized, probes=scores, notes=tuple(notes))


def detector_config(config: EvaluateConfig) -> DetectorConfig:
    """The settings of the reference detector."""
    return DetectorConfig(
        epochs=config.detector_epochs, width=config.detector_width, seed=config.seed
    )


def _obstacle(material: Material, config: EvaluateConfig) -> str:
    """Why nothing can be localized; empty when it can."""
    if len(material.training.actions) == 0:
        return (
            "The training subset has no annotated action with features, so no localizer is "
            "trained; set evaluate.train_subset, and export.subsets so that both are exported."
        )
    if len(material.evaluation.sequences) == 0:
        return (
            f"The subset {config.subset} has no annotated video with features, so nothing is "
            "localized; set evaluate.subset to an annotated and exported subset."
        )
    return ""


def _by_detector(material: Material, config: EvaluateConfig, on_progress: OnProgress) -> Localized:
    detector = train_detector(
        material.training.sequences,
        material.training.actions,
        num_classes=len(material.classes),
        config=detector_config(config),
        progress=lambda done, total, _: on_progress("epochs of the detector", done, total),
    )
    return Localized(
        detections=detector.detect(material.evaluation.sequences),
        classes_from="detector",
        actionness_from="detector",
        num_parameters=detector.num_parameters,
    )


def _by_rows(
    name: LocalizerName,
    heads: HeadsOnRows,
    probes: Probes,
    material: Material,
    notes: list[str],
    on_progress: OnProgress,
) -> Localized | None:
    """Group what heads or probes say of the rows; None when that says too little."""
    if name == "heads" and heads.action is None and heads.region is None:
        return None  # the notes on the accuracies of the heads say why
    action, classes_from = _classes(heads, probes, material)
    region: RowLogits | None = heads.region
    actionness_from: Source = "head"
    if region is None and probes.region is not None:
        region, actionness_from = _per_row(probes.region.logits), "probe"
    if region is None:
        notes.append(
            f"The rows of the training subset are not of both action and background, so {name} "
            "cannot tell the one from the other and localize nothing."
        )
        return None
    part, without = _spoken_for(material.evaluation, heads)
    if without:
        notes.append(
            f"The heads detect nothing in {without:,} videos without a global video feature."
        )
    found = []
    for done, video in enumerate(part, start=1):
        sequence = material.evaluation.sequences[video]
        rows = head_sequence(
            video,
            region_logits=region(sequence),
            action_logits=action(sequence),
            t_center=sequence.t_center,
            clip_seconds=material.clip_seconds,
            stride_seconds=sequence.stride_seconds,
            duration_seconds=sequence.duration_seconds,
        )
        found.append(localize_by_heads(rows))
        on_progress(f"videos by {name}", done, len(part))
    return Localized(
        detections=concatenate(found), classes_from=classes_from, actionness_from=actionness_from
    )


def _classes(heads: HeadsOnRows, probes: Probes, material: Material) -> tuple[RowLogits, Source]:
    if heads.action is not None:
        return heads.action, "head"
    if probes.action is not None:
        return _per_row(probes.action.logits), "probe"
    only = int(np.bincount(material.training.actions.label_indices).argmax())
    logits = np.full(len(material.classes), -1e4, dtype=np.float32)
    logits[only] = 0.0
    return lambda sequence: np.tile(logits, (len(sequence), 1)), "only class"


def _spoken_for(evaluation: Part, heads: HeadsOnRows) -> tuple[list[str], int]:
    names = list(evaluation.sequences)
    if heads.videos is None:
        return names, 0
    kept = [name for name in names if name in heads.videos]
    return kept, len(names) - len(kept)


def _probe_scores(probes: Probes, material: Material) -> ProbeScores:
    return score_probes(
        probes,
        material.evaluation.sequences,
        material.evaluation.actions,
        classes=material.classes,
        ambiguous=material.evaluation.ambiguous,
    )


def _affine(layer: torch.nn.Linear) -> OfFeatures:
    weight, bias = layer.weight.detach().float().numpy(), layer.bias.detach().float().numpy()
    return lambda features: np.asarray(features @ weight.T + bias)


def _per_row(of_features: OfFeatures) -> RowLogits:
    return lambda sequence: of_features(sequence.features)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Runs the localizers on frozen features: probes, the checkpoint's own heads, the detector.

All three give detections in the videos of the evaluated subset. A localizer that the data or the
checkpoint does not allow is left out, and a note says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

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
from tsp_core.evaluation.material import Material
from tsp_core.evaluation.row_logits import (
    HeadsOnRows,
    RowLogits,
    Source,
    row_classes,
    row_regions,
)

_MIN_STEPS = 400  # of the detector: a few videos are passed over more often

OnProgress = Callable[[str, int, int], None]
"""Called with a unit, how many of them are done, and all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Localized:
    """What one localizer detected.

    Attributes:
        detections: In the videos of the evaluated subset.
        classes_from: What names the classes.
        actionness_from: What tells action from background.
        num_parameters: Of the detector.
        settings: Of the detector.
    """

    detections: Detections
    classes_from: Source
    actionness_from: Source
    num_parameters: int | None = None
    settings: DetectorConfig | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """What all localizers detected.

    Attributes:
        localized: By name of the localizer.
        probes: How the probes classify the rows of the evaluated subset; None when not trained.
        region: Actionness of rows, by the head or else by the probe; None when neither tells it.
        region_from: Which of the two.
        notes: What was left out, as sentences.
    """

    localized: dict[LocalizerName, Localized]
    probes: ProbeScores | None
    notes: tuple[str, ...]
    region: RowLogits | None = None
    region_from: Source | None = None


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
    is_partial = bool(heads.silent_on(material.evaluation.sequences))
    region, region_from = row_regions(HeadsOnRows() if is_partial else heads, probes)
    return Localization(
        localized=localized,
        probes=scores,
        notes=tuple(notes),
        region=region,
        region_from=region_from,
    )


def detector_settings(config: EvaluateConfig, num_videos: int) -> DetectorConfig:
    """The settings of the detector for this many training videos."""
    settings = DetectorConfig(width=config.detector_width, seed=config.seed)
    steps_per_epoch = -(-num_videos // settings.batch_size)
    enough = max(settings.epochs, -(-_MIN_STEPS // steps_per_epoch))
    return replace(settings, epochs=config.detector_epochs or enough)


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
    settings = detector_settings(config, len(material.training.sequences))
    detector = train_detector(
        material.training.sequences,
        material.training.actions,
        num_classes=len(material.classes),
        config=settings,
        progress=lambda done, total, _: on_progress("epochs of the detector", done, total),
    )
    return Localized(
        detections=detector.detect(material.evaluation.sequences),
        classes_from="detector",
        actionness_from="detector",
        num_parameters=detector.num_parameters,
        settings=settings,
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
    action, classes_from = row_classes(heads, probes, material)
    region, actionness_from = row_regions(heads, probes)
    if region is None or actionness_from is None:
        notes.append(
            f"The rows of the training subset are not of both action and background, so {name} "
            "cannot tell the one from the other and localize nothing."
        )
        return None
    silent_on = heads.silent_on(material.evaluation.sequences)
    if silent_on:
        notes.append(
            f"The heads detect nothing in {len(silent_on):,} videos without a global video feature."
        )
    found = []
    videos = [video for video in material.evaluation.sequences if video not in silent_on]
    for done, video in enumerate(videos, start=1):
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
        on_progress(f"videos by {name}", done, len(videos))
    return Localized(
        detections=concatenate(found), classes_from=classes_from, actionness_from=actionness_from
    )


def _probe_scores(probes: Probes, material: Material) -> ProbeScores:
    return score_probes(
        probes,
        material.evaluation.sequences,
        material.evaluation.actions,
        classes=material.classes,
        ambiguous=material.evaluation.ambiguous,
    )


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch work on one thread; callers take turns, since the number is the process's."""
    with _ONE_AT_A_TIME, _num_threads(1):
        yield


@contextmanager
def _num_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

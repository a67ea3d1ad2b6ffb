"""The evidence of frozen features: what localizers make of them, and how they change in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsp_core.config import EvaluateConfig, LocalizerName
from tsp_core.evaluation.detection.instances import detections_table
from tsp_core.evaluation.localize import (
    Localization,
    OnProgress,
    localize,
)
from tsp_core.evaluation.material import Material
from tsp_core.evaluation.row_logits import HeadsOnRows
from tsp_core.evaluation.scoring import DetectionScores, score_detections
from tsp_core.evaluation.sensitivity import Sensitivity, measure_sensitivity
from tsp_core.schemas import DETECTIONS

HEADLINE: tuple[LocalizerName, ...] = ("detector", "heads", "probes")
"""Which localizer's figures come first, where it was run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All that was found out about the features.

    Attributes:
        material: What it rests on; None without features.
        localization: What was detected.
        scores: Of the detections, by localizer.
        sensitivity: Of the evaluated subset; None where it was not measured.
        notes: What was left out, as sentences.
    """

    material: Material | None
    localization: Localization
    scores: Mapping[LocalizerName, DetectionScores]
    sensitivity: Sensitivity | None
    notes: tuple[str, ...]

    @property
    def headline(self) -> LocalizerName | None:
        """The localizer whose figures come first."""
        return next((name for name in HEADLINE if name in self.scores), None)

    def detections(self) -> pa.Table:
        """Every detection, a table of the schema DETECTIONS."""
        parts = [
            detections_table(found.detections, localizer=name)
            for name, found in self.localization.localized.items()
        ]
        return pa.concat_tables([DETECTIONS.with_metadata().empty_table(), *parts])

    def as_json(self, config: EvaluateConfig) -> dict[str, Any]:
        """Plain JSON values; part of `metrics.json`."""
        material = self.material.as_json() if self.material else {"rows": {}}
        probes, detector = self.localization.probes, self.localization.localized.get("detector")
        return {
            "settings": {
                "protocol": config.protocol,
                "localizers": list(config.localizers),
                "seed": config.seed,
                "ambiguous": "ignore" if config.ignore_ambiguous else "count",
                **material,
                "rows": {**material["rows"], "max_rows": config.max_rows},
                "detector": vars(detector.settings) if detector and detector.settings else None,
            },
            "probes": probes.as_json() if probes else None,
            "localizers": {name: self._localizer(name) for name in self.scores},
            "sensitivity": self.sensitivity.as_json() if self.sensitivity else None,
        }

    def _localizer(self, name: LocalizerName) -> dict[str, Any]:
        found = self.localization.localized[name]
        return {
            "classes_from": found.classes_from,
            "actionness_from": found.actionness_from,
            "num_parameters": found.num_parameters,
            **self.scores[name].as_json(),
        }


def no_evidence(note: str) -> Evidence:
    """Evidence of nothing, and why."""
    return Evidence(
        material=None,
        localization=Localization(localized={}, probes=None, notes=()),
        scores={},
        sensitivity=None,
        notes=(note,),
    )


def measure_features(
    material: Material, heads: HeadsOnRows, config: EvaluateConfig, on_progress: OnProgress
) -> Evidence:
    """Localize, score, and measure the sensitivity to time.

    Args:
        material: Features and actions.
        heads: Of the checkpoint.
        config: What to measure.
        on_progress: Called as the work goes on.
    """
    localization = localize(material, heads, config, on_progress)
    evaluation, notes = material.evaluation, [*material.notes, *localization.notes]
    scores: dict[LocalizerName, DetectionScores] = {}
    if localization.localized and len(evaluation.actions) == 0:
        notes.append(f"The subset {config.subset} has no annotated action, so there is no mAP.")
    elif localization.localized:
        for name, found in localization.localized.items():
            scores[name] = score_detections(
                evaluation.actions,
                found.detections,
                durations_seconds=evaluation.sequences.durations_seconds(),
                protocol=config.protocol,
                ambiguous=evaluation.ambiguous if config.ignore_ambiguous else None,
            )
    sensitivity = None
    if config.sensitivity and len(evaluation.sequences):
        part = evaluation.within(config.max_rows)
        if len(part.sequences) < len(evaluation.sequences):
            notes.append(
                f"Temporal sensitivity is measured on {len(part.sequences):,} of the "
                f"{len(evaluation.sequences):,} videos, evenly chosen (evaluate.max_rows)."
            )
        sensitivity = measure_sensitivity(part.sequences, part.actions, ambiguous=part.ambiguous)
    return Evidence(
        material=material,
        localization=localization,
        scores=scores,
        sensitivity=sensitivity,
        notes=tuple(notes),
    )

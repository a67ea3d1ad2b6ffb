"""How well a study's features localize for a detector that has not seen the encoder's videos.

An encoder fits the videos that it was trained on, and the detector of `evaluate` learns from the
features of those same videos. Here the detector learns from one half of the evaluated videos and is
tested on the other, and the other way round; the figures of the variants can be compared with each
other, and with nothing else, for the halves may share people and places.
`python -m benchmarks.localizer_crossfit STUDY.yaml [--set KEY=VALUE]`, after the study has run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping

import torch

from tsp_core import artifacts
from tsp_core.config import Config, EvaluateConfig
from tsp_core.config.io import load_config
from tsp_core.evaluation.detection.average_precision import mean_average_precision
from tsp_core.evaluation.detection.instances import Instances, concatenate
from tsp_core.evaluation.localize import detector_settings
from tsp_core.evaluation.localizers.detector import train_detector
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.evaluation.material import gather_material
from tsp_core.evaluation.scoring import TIOU
from tsp_core.features.reading import opened_export
from tsp_core.runs import read_record
from tsp_core.schemas import read_table
from tsp_core.study.runs import variant_runs


def crossfit_map(
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    num_classes: int,
    config: EvaluateConfig,
) -> float:
    """Average mAP on all videos, each detected by the detector of the other half."""
    names = sorted(sequences)
    halves = (names[::2], names[1::2])
    found = []
    for own, other in (halves, halves[::-1]):
        detector = train_detector(
            {name: sequences[name] for name in own},
            actions,
            num_classes=num_classes,
            config=detector_settings(config, len(own)),
        )
        found.append(detector.detect({name: sequences[name] for name in other}))
    tiou = TIOU[config.protocol]
    return mean_average_precision(actions, concatenate(found), tiou_thresholds=tiou).mean


def measured(config: Config) -> float | None:
    """The figure of one run; None when it has not been run."""
    stages = read_record(config).stages
    if not {"annotate", "export"} <= stages.keys():
        return None
    annotate, export_uri = stages["annotate"].artifact, stages["export"].artifact.uri
    segments = read_table(annotate.file("segments.parquet"), "segments")
    with opened_export(export_uri) as export:
        if export is None:
            return None
        material = gather_material(
            export,
            segments,
            classes=tuple(json.loads(artifacts.read_file(annotate, "classes.json"))),
            train_subset=config.evaluate.subset,
            config=config.evaluate,
        )
        return crossfit_map(
            material.evaluation.sequences,
            material.evaluation.actions,
            num_classes=len(material.classes),
            config=config.evaluate,
        )


def main() -> None:
    """Measure every run of the study and print a line per variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="the study's file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config, assignments=arguments.set)
    config = config.model_copy(
        update={"study": config.study.model_copy(update={"initial": None})}
    )  # what the runs started from does not matter any more
    by_variant: dict[str, list[float]] = {}
    for run in variant_runs(config):
        figure = measured(run.config)
        if figure is not None:
            by_variant.setdefault(run.variant, []).append(100 * figure)
    print("mAP of the detector in per cent, trained and tested on halves of the evaluated videos")
    for variant, figures in by_variant.items():
        spread = f" ± {statistics.stdev(figures):.1f}" if len(figures) > 1 else ""
        print(f"{variant:20} {statistics.mean(figures):5.1f}{spread}   ({len(figures)} seeds)")


if __name__ == "__main__":
    main()

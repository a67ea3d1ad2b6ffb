"""Evidence of made-up features, and a report of it with every kind of block."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.evaluation.localizers.made_up import STRIDE, made_up
from tsp_core.config import EvaluateConfig
from tsp_core.evaluation.blocks import Figures
from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.evidence import Evidence, measure_features
from tsp_core.evaluation.heads import score_head
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.evaluation.material import Material, gather_material
from tsp_core.evaluation.report import Report
from tsp_core.evaluation.row_logits import HeadsOnRows
from tsp_core.evaluation.sections.heads import heads_figures, heads_section
from tsp_core.evaluation.sections.localization import localization_figures, localization_section
from tsp_core.evaluation.sections.localization_charts import TITLES
from tsp_core.evaluation.sections.sensitivity import sensitivity_section
from tsp_core.evaluation.sections.training import training_section
from tsp_core.evaluation.sections.videos import videos_section
from tsp_core.evaluation.stories import tell_stories
from tsp_core.features.reading import ExportedFeatures
from tsp_core.schemas import METRICS, SEGMENTS, table_from_rows

CLASSES = ("Walking the dog", "Clean and jerk", "Sit down")
CONFIG = EvaluateConfig(detector_epochs=12, detector_width=24)


def export_of(sequences: Mapping[str, FeatureSequence], *, clip_seconds: float) -> ExportedFeatures:
    """An open export that holds these features."""
    manifest = {
        "row_time": {"extent_seconds": clip_seconds, "step_seconds": STRIDE},
        "videos": {
            name: {"duration_seconds": sequence.duration_seconds}
            for name, sequence in sequences.items()
        },
    }
    return ExportedFeatures(
        manifest=manifest,
        centers_seconds={name: sequence.t_center for name, sequence in sequences.items()},
        read=lambda video: sequences[video].features,
    )


def segments_of(subset: str, actions: Instances) -> list[dict[str, Any]]:
    """Rows of the segments table."""
    return [
        {
            "video": video,
            "subset": subset,
            "kind": "action",
            "label": CLASSES[label],
            "label_index": label,
            "region": 0,
            "t_start": start,
            "t_end": end,
        }
        for video, label, start, end in zip(
            actions.videos.tolist(),
            actions.label_indices.tolist(),
            actions.t_start.tolist(),
            actions.t_end.tolist(),
            strict=True,
        )
    ]


def segments_table(rows: list[dict[str, Any]]) -> pa.Table:
    """A table of the schema SEGMENTS."""
    return table_from_rows(rows, SEGMENTS)


@functools.cache
def material(config: EvaluateConfig = CONFIG, *, num_videos: int = 10) -> Material:
    """Training and evaluated videos with a direction per class."""
    training, trained_on = made_up(num_videos, seed=0, num_classes=len(CLASSES), noise=0.8)
    evaluated, actions = made_up(num_videos - 2, seed=1, num_classes=len(CLASSES), noise=0.8)
    rows = [*segments_of("training", trained_on), *segments_of("validation", actions)]
    return gather_material(
        export_of({**training, **evaluated}, clip_seconds=2 * STRIDE),
        segments_table(rows),
        classes=CLASSES,
        train_subset="training",
        config=config,
    )


@functools.cache
def evidence() -> Evidence:
    """What is found out about the features of `material`."""
    return measure_features(material(), HeadsOnRows(), CONFIG, lambda unit, done, total: None)


def thumbnails(count: int = 10) -> tuple[bytes, ...]:
    """Frames as JPEG, brighter and brighter."""
    files = []
    for number in range(count):
        pixels = np.full((72, 96, 3), 25 * number, dtype=np.uint8)
        pixels[20:50, 8 * number : 8 * number + 16] = (200, 90, 30)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG")
        files.append(buffer.getvalue())
    return tuple(files)


def training_metrics(num_epochs: int = 12) -> pa.Table:
    """Losses that fall and accuracies that rise."""
    rows = []
    for epoch in range(num_epochs):
        values = {
            ("train", "loss"): 2.4 * 0.8**epoch,
            ("valid", "loss"): 2.5 * 0.85**epoch,
            ("valid", "accuracy_action"): 1 - 0.8**epoch,
            ("valid", "accuracy_region"): 0.9 - 0.4 * 0.7**epoch,
        }
        rows += [
            {"epoch": epoch, "iteration": 10 * epoch, "phase": phase, "name": name, "value": value}
            for (phase, name), value in values.items()
        ]
    return table_from_rows(rows, METRICS)


def report() -> Report:
    """A report with a section of every kind that is drawn."""
    found = evidence()
    stories = tell_stories(found, protocol="activitynet")
    assert stories is not None
    assert found.headline is not None
    assert found.sensitivity is not None
    draws = np.random.default_rng(0)
    truth = draws.integers(len(CLASSES), size=300)
    logits = draws.normal(size=(300, len(CLASSES))) + 2 * np.eye(len(CLASSES))[truth]
    score = score_head(logits, truth, CLASSES)
    assert score is not None
    return Report(
        title="sample: report",
        figures=Figures(
            figures=(
                *localization_figures(found, "activitynet"),
                *heads_figures({"action": score}, "validation"),
            )
        ),
        sections=(
            localization_section(
                found, protocol="activitynet", subset="validation", classes=CLASSES
            ),
            videos_section(
                stories,
                classes=CLASSES,
                thumbnails={story.sequence.video: thumbnails() for story in stories.videos[1:]},
                localizer=TITLES[found.headline],
                actionness_from=found.localization.region_from,
            ),
            sensitivity_section(found.sensitivity, stories, classes=CLASSES),
            heads_section({"action": score}, subset="validation", notes=["A note."]),
            training_section(training_metrics(), best_epoch=9),
        ),
    )

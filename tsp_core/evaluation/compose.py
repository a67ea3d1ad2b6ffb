"""Composes the report of its sections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.evaluation.blocks import Figures, Section
from tsp_core.evaluation.evidence import Evidence
from tsp_core.evaluation.heads import HeadScore
from tsp_core.evaluation.report import Report
from tsp_core.evaluation.sections.configuration import configuration_section, shown_configuration
from tsp_core.evaluation.sections.dataset import DatasetTables, dataset_figure, dataset_section
from tsp_core.evaluation.sections.features import features_figure, features_section
from tsp_core.evaluation.sections.heads import heads_figures, heads_section
from tsp_core.evaluation.sections.localization import localization_figures, localization_section
from tsp_core.evaluation.sections.localization_charts import TITLES
from tsp_core.evaluation.sections.sensitivity import sensitivity_section
from tsp_core.evaluation.sections.training import training_section
from tsp_core.evaluation.sections.videos import videos_section
from tsp_core.evaluation.stories import Stories, tell_stories
from tsp_core.evaluation.thumbnails import video_thumbnails
from tsp_core.schemas import read_table
from tsp_core.video.sandbox import DecodingLimits

Inputs = Mapping[str, ArtifactRef]


def compose_report(
    config: Config,
    inputs: Inputs,
    *,
    tables: DatasetTables,
    manifest: Mapping[str, Any],
    scores: Mapping[str, HeadScore],
    notes: tuple[str, ...],
    evidence: Evidence,
) -> Report:
    """Put the report together; the export that the evidence is of is still open.

    Args:
        config: The configuration.
        inputs: Artifacts by stage; "pretrain" may be absent.
        tables: Of the data set.
        manifest: Of the export.
        scores: Of the heads.
        notes: On the heads.
        evidence: On the features.
    """
    subset, protocol = config.evaluate.subset, config.evaluate.protocol
    fingerprints = {name: artifact.fingerprint for name, artifact in inputs.items()}
    stories = tell_stories(
        evidence, protocol=protocol, ignore_ambiguous=config.evaluate.ignore_ambiguous
    )
    figures = (
        *localization_figures(evidence, protocol),
        *heads_figures(scores, subset),
        dataset_figure(tables.videos),
        features_figure(manifest),
    )
    sections = (
        localization_section(evidence, protocol=protocol, subset=subset, classes=tables.classes),
        *_videos(config, tables, evidence, stories),
        *_sensitivity(tables, evidence, stories),
        heads_section(scores, subset=subset, notes=notes),
        *_training(inputs.get("pretrain")),
        dataset_section(tables),
        features_section(manifest, _file_sizes(inputs["export"])),
        configuration_section(shown_configuration(config), fingerprints, name=config.name),
    )
    return Report(
        title=f"{config.name}: report", figures=Figures(figures=figures), sections=sections
    )


def _videos(
    config: Config, tables: DatasetTables, evidence: Evidence, stories: Stories | None
) -> list[Section]:
    if stories is None or evidence.headline is None:
        return []
    wanted = [story.sequence.video for story in stories.videos]
    rows = tables.videos.filter(pc.field("video").isin(wanted)).to_pylist()
    runtime = config.runtime
    limits = DecodingLimits.of(runtime)
    thumbnails = {
        row["video"]: video_thumbnails(row, cache_dir=runtime.cache_dir, limits=limits)
        for row in rows
    }
    section = videos_section(
        stories,
        classes=tables.classes,
        thumbnails=thumbnails,
        localizer=TITLES[evidence.headline],
        actionness_from=evidence.localization.region_from,
    )
    return [section]


def _sensitivity(
    tables: DatasetTables, evidence: Evidence, stories: Stories | None
) -> list[Section]:
    if evidence.sensitivity is None:
        return []
    return [sensitivity_section(evidence.sensitivity, stories, classes=tables.classes)]


def _training(pretrain: ArtifactRef | None) -> list[Section]:
    if pretrain is None:
        return []
    result = json.loads(artifacts.read_file(pretrain, "training.json"))
    section = training_section(
        read_table(pretrain.file("metrics.parquet"), "metrics"),
        best_epoch=result["best_epoch"],
    )
    return [section]


def _file_sizes(export: ArtifactRef) -> dict[str, int]:
    files = artifacts.read_marker(export.uri).files
    return {name: entry.size_bytes for name, entry in files.items()}

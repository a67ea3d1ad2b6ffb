"""Puts an evaluation together from the artifacts of a run: predictions, scores, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.evaluation.blocks import Figures, Section
from tsp_core.evaluation.heads import HeadScore, score_predictions
from tsp_core.evaluation.predict import Compute, Predictions, Subset, load_heads, predict_subset
from tsp_core.evaluation.report import Report
from tsp_core.evaluation.sections.configuration import configuration_section, shown_configuration
from tsp_core.evaluation.sections.dataset import DatasetTables, dataset_figure, dataset_section
from tsp_core.evaluation.sections.features import features_figure, features_section
from tsp_core.evaluation.sections.heads import heads_figures, heads_section
from tsp_core.evaluation.sections.training import training_section
from tsp_core.features.extraction import resolve_device
from tsp_core.features.gvf import read_gvf
from tsp_core.features.manifest import MANIFEST, parse_manifest
from tsp_core.model.checkpoint import LoadedCheckpoint, load_checkpoint
from tsp_core.schemas import read_table

METRICS_VERSION = 1

Inputs = Mapping[str, ArtifactRef]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that the evaluate stage publishes.

    Attributes:
        predictions: Of the schema `tsp_core.schemas.predictions_schema`.
        scores: By head, "action" and "region".
        notes: Why a head was not evaluated.
        metrics: The figures for programs, plain JSON values.
        report: The figures for people.
    """

    predictions: pa.Table
    scores: Mapping[str, HeadScore]
    notes: tuple[str, ...]
    metrics: Mapping[str, Any]
    report: Report


def evaluate(config: Config, inputs: Inputs, on_clips: Callable[[int, int], None]) -> Evaluation:
    """Evaluate what was exported.

    Args:
        config: The configuration.
        inputs: Artifacts by stage; "gvf" and "pretrain" may be absent.
        on_clips: Called with the clips predicted so far and all.

    Raises:
        GvfError: A video of the subset has no global video feature.
        ArtifactError: An input is damaged.
    """
    tables = _read_tables(inputs)
    manifest = parse_manifest(artifacts.read_file(inputs["export"], MANIFEST), inputs["export"].uri)
    predictions = _predict(config, inputs, tables, on_clips)
    scores = score_predictions(predictions.table, tables.classes)
    return Evaluation(
        predictions=predictions.table,
        scores=scores,
        notes=predictions.notes,
        metrics={
            "metrics_version": METRICS_VERSION,
            "subset": config.evaluate.subset,
            "clips_per_segment": config.evaluate.clips_per_segment,
            "checkpoint": manifest["checkpoint"],
            "heads": {head: score.as_json() for head, score in scores.items()},
            "notes": list(predictions.notes),
        },
        report=_report(config, inputs, tables, manifest, scores, predictions.notes),
    )


def _report(
    config: Config,
    inputs: Inputs,
    tables: DatasetTables,
    manifest: Mapping[str, Any],
    scores: Mapping[str, HeadScore],
    notes: tuple[str, ...],
) -> Report:
    subset = config.evaluate.subset
    fingerprints = {name: artifact.fingerprint for name, artifact in inputs.items()}
    figures = (
        *heads_figures(scores, subset),
        dataset_figure(tables.videos),
        features_figure(manifest),
    )
    sections = (
        heads_section(scores, subset=subset, notes=notes),
        dataset_section(tables),
        *_training(inputs.get("pretrain")),
        features_section(manifest, _file_sizes(inputs["export"])),
        configuration_section(shown_configuration(config), fingerprints),
    )
    return Report(
        title=f"{config.name}: report", figures=Figures(figures=figures), sections=sections
    )


def _read_tables(inputs: Inputs) -> DatasetTables:
    annotate = inputs["annotate"]
    return DatasetTables(
        videos=read_table(inputs["ingest"].file("videos.parquet"), "videos"),
        segments=read_table(annotate.file("segments.parquet"), "segments"),
        problems=read_table(annotate.file("problems.parquet"), "problems"),
        clips=read_table(inputs["index"].file("clips.parquet"), "clips"),
        classes=tuple(json.loads(artifacts.read_file(annotate, "classes.json"))),
    )


def _predict(
    config: Config,
    inputs: Inputs,
    tables: DatasetTables,
    on_clips: Callable[[int, int], None],
) -> Predictions:
    checkpoint: LoadedCheckpoint | None
    if config.export.checkpoint is None:  # as pretraining validated it, so that the figures agree
        best = inputs["pretrain"].file("best.pth")
        checkpoint = load_checkpoint(best, cache_dir=config.runtime.cache_dir)
        precision = config.pretrain.precision
    else:
        checkpoint = load_heads(
            config.export.checkpoint, encoder=config.encoder, cache_dir=config.runtime.cache_dir
        )
        precision = config.export.precision
    compute = Compute(
        device=str(resolve_device(config.runtime.device)),
        batch_size=config.evaluate.batch_size,
        workers=config.pretrain.workers or 0,
        cache_dir=config.runtime.cache_dir,
    )
    subset = Subset(
        name=config.evaluate.subset,
        videos=tables.videos,
        clips=tables.clips,
        classes=tables.classes,
        gvf=read_gvf(inputs["gvf"].file("gvf.parquet")) if "gvf" in inputs else None,
        clip=config.clip,
        clips_per_segment=config.evaluate.clips_per_segment,
    )
    return predict_subset(
        checkpoint, subset, precision=precision, compute=compute, progress=on_clips
    )


def _training(pretrain: ArtifactRef | None) -> list[Section]:
    if pretrain is None:
        return []
    result = json.loads(artifacts.read_file(pretrain, "training.json"))
    section = training_section(
        read_table(pretrain.file("metrics.parquet"), "metrics"),
        best_epoch=result["best_epoch"],
        curves_png=artifacts.read_file(pretrain, "curves.png"),
    )
    return [section]


def _file_sizes(export: ArtifactRef) -> dict[str, int]:
    files = artifacts.read_marker(export.uri).files
    return {name: entry.size_bytes for name, entry in files.items()}

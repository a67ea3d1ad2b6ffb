"""Puts an evaluation together from the artifacts of a run: predictions, scores, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsp_core import artifacts
from tsp_core.annotations.subsets import videos_by_subset
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config, Precision
from tsp_core.evaluation.compose import compose_report
from tsp_core.evaluation.evidence import Evidence, measure_features, no_evidence
from tsp_core.evaluation.heads import HeadScore, region_auc_of, score_predictions
from tsp_core.evaluation.localize import OnProgress
from tsp_core.evaluation.material import gather_material
from tsp_core.evaluation.predict import (
    Compute,
    OwnHeads,
    Predictions,
    Subset,
    class_mismatch,
    gvf_mismatch,
    load_heads,
    predict_subset,
)
from tsp_core.evaluation.report import Report
from tsp_core.evaluation.row_logits import heads_on_rows
from tsp_core.evaluation.sections.dataset import DatasetTables
from tsp_core.features.extraction import resolve_device
from tsp_core.features.gvf import GvfTable, read_gvf
from tsp_core.features.manifest import MANIFEST, parse_manifest
from tsp_core.features.reading import ExportedFeatures, opened_export
from tsp_core.model.checkpoint import load_checkpoint
from tsp_core.schemas import read_table
from tsp_core.video.sandbox import DecodingLimits

METRICS_VERSION = 2

Inputs = Mapping[str, ArtifactRef]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that the evaluate stage publishes.

    Attributes:
        predictions: Of the schema `tsp_core.schemas.predictions_schema`.
        detections: Of the schema DETECTIONS.
        summary: The headline figures, plain JSON values.
        metrics: The figures for programs, plain JSON values.
        report: The figures for people.
    """

    predictions: pa.Table
    detections: pa.Table
    summary: Mapping[str, Any]
    metrics: Mapping[str, Any]
    report: Report


def evaluate(config: Config, inputs: Inputs, on_progress: OnProgress) -> Evaluation:
    """Evaluate what was exported.

    Args:
        config: The configuration.
        inputs: Artifacts by stage; "gvf" and "pretrain" may be absent.
        on_progress: Called as the work goes on.

    Raises:
        GvfError: A video of the subset has no global video feature.
        ArtifactError: An input is damaged.
    """
    tables = _read_tables(inputs)
    manifest = parse_manifest(artifacts.read_file(inputs["export"], MANIFEST), inputs["export"].uri)
    model = _load_model(config, inputs, exported=manifest["checkpoint"])
    predictions = _predict(config, model, tables, on_progress)
    scores = score_predictions(predictions.table, tables.classes)
    with opened_export(inputs["export"].uri) as export:
        evidence = _measure(config, model, tables, export, on_progress)
        notes = (*predictions.notes, *evidence.notes)
        report = compose_report(
            config,
            inputs,
            tables=tables,
            manifest=manifest,
            scores=scores,
            notes=predictions.notes,
            evidence=evidence,
        )
    return Evaluation(
        predictions=predictions.table,
        detections=evidence.detections(),
        summary=_summary(config, scores, predictions.table, evidence, notes),
        metrics={
            "metrics_version": METRICS_VERSION,
            "subset": config.evaluate.subset,
            "train_subset": config.localizers_subset,
            "clips_per_segment": config.evaluate.clips_per_segment,
            "checkpoint": manifest["checkpoint"],
            "classes": list(tables.classes),
            "heads": _heads_json(scores, predictions.table),
            **evidence.as_json(config.evaluate),
            "notes": list(notes),
        },
        report=report,
    )


def _heads_json(scores: Mapping[str, HeadScore], predictions: pa.Table) -> dict[str, Any]:
    values = {head: score.as_json() for head, score in scores.items()}
    if "region" in values:
        values["region"]["auc"] = region_auc_of(predictions)
    return values


def _summary(
    config: Config,
    scores: Mapping[str, HeadScore],
    predictions: pa.Table,
    evidence: Evidence,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    evaluate = config.evaluate
    summary: dict[str, Any] = {"subset": evaluate.subset, "protocol": evaluate.protocol}
    for head, score in scores.items():
        summary[f"accuracy_{head}"] = score.accuracy
        summary[f"balanced_accuracy_{head}"] = score.balanced_accuracy
    probes = evidence.localization.probes
    if probes is not None:
        summary["probe_region_auc"] = probes.region_auc
    for name, found in evidence.scores.items():
        summary[f"average_map_{name}"] = found.average_precision[evaluate.protocol].mean
    if evidence.sensitivity is not None:
        summary["region_silhouette"] = evidence.sensitivity.silhouette
        summary["boundary_contrast"] = evidence.sensitivity.similarity.contrast
    return {**summary, "clips": len(predictions), "notes": list(notes)}


def _measure(
    config: Config,
    model: _Model,
    tables: DatasetTables,
    export: ExportedFeatures | None,
    on_progress: OnProgress,
) -> Evidence:
    """Measure the features, as far as there are any."""
    if export is None:
        return no_evidence(
            "The export has features in no format that is read here, so there is no mAP; add h5, "
            "npy, pkl or parquet to export.formats."
        )
    material = gather_material(
        export,
        tables.segments,
        classes=tables.classes,
        train_subset=config.localizers_subset,
        config=config.evaluate,
        subsets=tables.subsets,
    )
    checkpoint = model.heads.checkpoint
    heads = heads_on_rows(
        None if checkpoint is None else checkpoint.model,
        classes_fit=checkpoint is not None and not class_mismatch(checkpoint, tables.classes),
        gvf=model.gvf,
    )
    return measure_features(material, heads, config.evaluate, on_progress)


def _read_tables(inputs: Inputs) -> DatasetTables:
    annotate = inputs["annotate"]
    return DatasetTables(
        videos=read_table(inputs["ingest"].file("videos.parquet"), "videos"),
        segments=read_table(annotate.file("segments.parquet"), "segments"),
        problems=read_table(annotate.file("problems.parquet"), "problems"),
        clips=read_table(inputs["index"].file("clips.parquet"), "clips"),
        classes=tuple(json.loads(artifacts.read_file(annotate, "classes.json"))),
        subsets=videos_by_subset(annotate),
    )


@dataclass(frozen=True, kw_only=True)
class _Model:
    """The checkpoint that was exported with, as far as it has heads of this method."""

    heads: OwnHeads
    gvf: GvfTable | None
    no_gvf: str
    precision: Precision


def _load_model(config: Config, inputs: Inputs, *, exported: str) -> _Model:
    cache_dir = config.runtime.cache_dir
    if config.export.checkpoint is None:  # as pretraining validated it, so that the figures agree
        best = inputs["pretrain"].file("best.pth")
        heads = OwnHeads(checkpoint=load_checkpoint(best, cache_dir=cache_dir))
        precision = config.pretrain.precision
    else:
        heads = load_heads(
            config.export.checkpoint, encoder=config.encoder, exported=exported, cache_dir=cache_dir
        )
        precision = config.export.precision
    gvf, no_gvf = _gvf_for(heads, inputs.get("gvf"))
    return _Model(heads=heads, gvf=gvf, no_gvf=no_gvf, precision=precision)


def _gvf_for(heads: OwnHeads, made: ArtifactRef | None) -> tuple[GvfTable | None, str]:
    """The GVFs that a checkpoint's region head may be given; or why not those that were made."""
    if made is None:
        return None, ""
    if heads.checkpoint is not None and heads.checkpoint.model.use_gvf:
        recipe = artifacts.read_marker(made.uri).recipe
        if mismatch := gvf_mismatch(heads.checkpoint.info, recipe.config):
            return None, mismatch
    return read_gvf(made.file("gvf.parquet")), ""


def _predict(
    config: Config, model: _Model, tables: DatasetTables, on_progress: OnProgress
) -> Predictions:
    compute = Compute(
        device=str(resolve_device(config.runtime.device)),
        batch_size=config.evaluate.batch_size,
        workers=config.pretrain.workers or 0,
        cache_dir=config.runtime.cache_dir,
        limits=DecodingLimits.of(config.runtime),
    )
    subset = Subset(
        name=config.evaluate.subset,
        videos=tables.videos,
        clips=tables.clips,
        classes=tables.classes,
        gvf=model.gvf,
        no_gvf=model.no_gvf,
        clip=config.clip,
        clips_per_segment=config.evaluate.clips_per_segment,
    )
    return predict_subset(
        model.heads,
        subset,
        precision=model.precision,
        compute=compute,
        progress=lambda done, total: on_progress("clips", done, total),
    )

"""Runs an exported checkpoint's own heads over the clips of a subset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tsp_core.config import ClipConfig, EncoderConfig, Precision
from tsp_core.errors import WeightsError
from tsp_core.features.gvf import GvfTable
from tsp_core.model.checkpoint import LoadedCheckpoint, load_checkpoint
from tsp_core.schemas import predictions_schema
from tsp_core.training.validate import open_samples, predict_clips
from tsp_core.video.sandbox import DecodingLimits


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The clips to predict.

    Attributes:
        name: Of the subset.
        videos: Of the schema VIDEOS.
        clips: Of the schema CLIPS, every subset.
        classes: Action classes of the data set in index order.
        gvf: Global video features; None where none were made.
        clip: What a clip is.
        clips_per_segment: Clips per segment, evenly spaced.
    """

    name: str
    videos: pa.Table
    clips: pa.Table
    classes: tuple[str, ...]
    gvf: GvfTable | None
    clip: ClipConfig
    clips_per_segment: int


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the work is done; of no effect on what comes out.

    Attributes:
        device: "cpu" or "cuda".
        batch_size: Clips per forward pass.
        workers: Loader processes.
        cache_dir: Local folder for what is fetched from remote stores.
        limits: What decoding a clip may take, in worker processes; None decodes without.
    """

    device: str
    batch_size: int
    workers: int
    cache_dir: str | None
    limits: DecodingLimits | None = None


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What came of it.

    Attributes:
        table: Of the schema `predictions_schema(len(classes))`; no rows when nothing was run.
        notes: Why a head was not run, as sentences for the report.
    """

    table: pa.Table
    notes: tuple[str, ...]


def load_heads(
    spec: str, *, encoder: EncoderConfig, cache_dir: str | None
) -> LoadedCheckpoint | None:
    """Load a checkpoint that an export was made with; None when it has no heads of TSP.

    The export has loaded its encoder from the same file, so an error here means the heads.
    """
    if spec == "kinetics" or spec.startswith("random:"):
        return None
    try:
        return load_checkpoint(
            spec, encoder=encoder.name, mirror=encoder.mirror, cache_dir=cache_dir
        )
    except WeightsError:
        return None


def predict_subset(
    checkpoint: LoadedCheckpoint | None,
    subset: Subset,
    *,
    precision: Precision,
    compute: Compute,
    progress: Callable[[int, int], None],
) -> Predictions:
    """Run a checkpoint's heads over a subset, as far as they fit the data set.

    Args:
        checkpoint: From `load_heads`.
        subset: What to run on.
        precision: Arithmetic of the encoder.
        compute: How.
        progress: Called with the clips done and all.
    """
    clips, notes = _usable_clips(checkpoint, subset)
    obstacle = _obstacle(checkpoint, subset, clips)
    if obstacle or checkpoint is None:
        empty = predictions_schema(len(subset.classes)).with_metadata().empty_table()
        return Predictions(table=empty, notes=(*notes, obstacle))
    gvf = subset.gvf if checkpoint.model.use_gvf else None
    with open_samples(
        videos=subset.videos,
        clips=clips,
        heads=checkpoint.model.heads,
        clip=subset.clip,
        clips_per_segment=subset.clips_per_segment,
        gvf=None if gvf is None else {name: gvf.lookup(name) for name in gvf.names},
        cache_dir=compute.cache_dir,
        limits=compute.limits,
    ) as samples:
        table = predict_clips(
            checkpoint.model,
            samples,
            device=compute.device,
            precision=precision,
            batch_size=compute.batch_size,
            workers=compute.workers,
            progress=progress,
        )
    mismatch = class_mismatch(checkpoint, subset.classes)
    if mismatch:
        notes.append(mismatch)
    if unread := _num_unread(table):
        notes.append(f"{unread:,} clips are left out: they could not be read.")
    table = _in_schema(table, len(subset.classes), keep_action=not mismatch)
    return Predictions(table=table, notes=tuple(notes))


def _usable_clips(
    checkpoint: LoadedCheckpoint | None, subset: Subset
) -> tuple[pa.Table, list[str]]:
    """The segments to predict, and what was left out of those that hold a clip."""
    clips = subset.clips.filter((pc.field("subset") == subset.name) & (pc.field("status") == "ok"))
    failed = list(subset.gvf.failed) if subset.gvf is not None else []
    if checkpoint is None or not checkpoint.model.use_gvf or not failed:
        return clips, []
    kept = clips.filter(~pc.field("video").isin(failed))
    num_failed = len(clips) - len(kept)
    if num_failed == 0:
        return clips, []
    return kept, [f"{num_failed:,} segments are left out: their videos failed in the stage gvf."]


def _obstacle(checkpoint: LoadedCheckpoint | None, subset: Subset, clips: pa.Table) -> str:
    """Why the heads cannot be run at all; empty when they can."""
    if checkpoint is None:
        return (
            "The features were exported from weights without heads of this method, so there are "
            "no head accuracies."
        )
    if len(clips) == 0:
        return (
            f"The subset {subset.name} has no segment to predict, so there are no head accuracies; "
            "set evaluate.subset to an annotated subset."
        )
    if checkpoint.model.use_gvf and subset.gvf is None:
        return (
            "The region head of the checkpoint takes global video features, which this "
            "configuration does not make (gvf.pooling, pretrain.heads), so there are no head "
            "accuracies."
        )
    return ""


def class_mismatch(checkpoint: LoadedCheckpoint, classes: tuple[str, ...]) -> str:
    """Why the action head says nothing about this data set; empty when it does."""
    info = checkpoint.info
    if info.heads == "region":
        return ""
    if info.num_classes != len(classes):
        return (
            f"The checkpoint's action head has {info.num_classes:,} classes and the data set has "
            f"{len(classes):,}, so there is no action accuracy."
        )
    if info.classes and info.classes != classes:
        return (
            "The checkpoint's action head was trained on other classes than those of the data "
            "set, so there is no action accuracy."
        )
    return ""


def _num_unread(table: pa.Table) -> int:
    """Clips that could not be read have logits of no head."""
    unread = pc.field("action_logits").is_null() & pc.field("region_logits").is_null()
    return len(table.filter(unread))


def _in_schema(table: pa.Table, num_classes: int, *, keep_action: bool) -> pa.Table:
    schema = predictions_schema(num_classes).with_metadata()
    for name in ("action_logits", "region_logits"):
        index = table.schema.get_field_index(name)
        column = table[name]
        absent = column.null_count == len(column) or (name == "action_logits" and not keep_action)
        if absent:
            table = table.set_column(index, name, pa.nulls(len(table), schema.field(name).type))
    return table.cast(schema)

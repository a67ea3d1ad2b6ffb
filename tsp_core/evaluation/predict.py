"""Runs an exported checkpoint's own heads over the clips of a subset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tsp_core.config import ClipConfig, EncoderConfig, Precision
from tsp_core.errors import NoHeadsError, WeightsError
from tsp_core.features.gvf import GvfTable
from tsp_core.model.checkpoint import LoadedCheckpoint, load_checkpoint
from tsp_core.model.checkpoint_info import CheckpointInfo
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
        gvf: Global video features; None where there are none for the checkpoint.
        no_gvf: Why there are none, as a sentence, where some were made.
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
    no_gvf: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnHeads:
    """The checkpoint that an export was made with, when it has heads of this method.

    Attributes:
        checkpoint: None without such heads.
        note: Why there are none, as a sentence.
    """

    checkpoint: LoadedCheckpoint | None
    note: str = ""


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


_NO_HEADS = OwnHeads(
    checkpoint=None,
    note="The features were exported from weights without heads of this method, so there are no "
    "head accuracies.",
)


def load_heads(
    spec: str, *, encoder: EncoderConfig, exported: str, cache_dir: str | None
) -> OwnHeads:
    """Load the heads of a checkpoint that an export was made with.

    Args:
        spec: Path, URI or name.
        encoder: Of the export.
        exported: Identity of the weights that were exported with, as in the manifest.
        cache_dir: Where downloads are kept.
    """
    if spec == "kinetics" or spec.startswith("random:"):
        return _NO_HEADS
    is_hash = exported.startswith("sha256:")
    try:
        loaded = load_checkpoint(
            spec,
            encoder=encoder.name,
            sha256_prefix=exported.removeprefix("sha256:") if is_hash else None,
            mirror=encoder.mirror,
            cache_dir=cache_dir,
        )
    except NoHeadsError:
        return _NO_HEADS
    except WeightsError as error:  # of the heads, or the file is another by now
        note = f"The checkpoint's heads cannot be used, so there are no head accuracies: {error}."
        return OwnHeads(checkpoint=None, note=note)
    return OwnHeads(checkpoint=loaded)


def gvf_mismatch(info: CheckpointInfo, made: Mapping[str, Any]) -> str:
    """Why global video features say nothing to a checkpoint; empty when no reason is known.

    Args:
        info: Of the checkpoint.
        made: Configuration in the recipe of the GVFs; imported ones are of unknown making.
    """
    settings = made.get("gvf", {})
    known = (
        ("pooling", info.gvf_pooling, settings.get("pooling")),
        ("stride", info.gvf_stride, settings.get("stride")),
        ("initial weights", info.encoder_weights, made.get("weights")),
    )
    for name, trained, present in known:
        if trained is not None and present is not None and not _agree(trained, present):
            return (
                "The checkpoint's region head was trained with global video features of other "
                f"making ({name}: {trained}, here: {present}), so there are no head accuracies."
            )
    return ""


def _agree(trained: str | int, present: str | int) -> bool:
    """Hashes may be known by their starts; addresses of objects say nothing of their content."""
    one, other = str(trained), str(present)
    return "object:" in one + other or one.startswith(other) or other.startswith(one)


def predict_subset(
    heads: OwnHeads,
    subset: Subset,
    *,
    precision: Precision,
    compute: Compute,
    progress: Callable[[int, int], None],
) -> Predictions:
    """Run a checkpoint's heads over a subset, as far as they fit the data set.

    Args:
        heads: From `load_heads`.
        subset: What to run on.
        precision: Arithmetic of the encoder.
        compute: How.
        progress: Called with the clips done and all.
    """
    checkpoint = heads.checkpoint
    clips, notes = _usable_clips(checkpoint, subset)
    obstacle = _obstacle(heads, subset, clips)
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


def _obstacle(heads: OwnHeads, subset: Subset, clips: pa.Table) -> str:
    """Why the heads cannot be run at all; empty when they can."""
    if heads.checkpoint is None:
        return heads.note
    if len(clips) == 0:
        return (
            f"The subset {subset.name} has no segment to predict, so there are no head accuracies; "
            "set evaluate.subset to an annotated subset."
        )
    if heads.checkpoint.model.use_gvf and subset.gvf is None:
        return subset.no_gvf or (
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

"""Runs a model over evenly spaced clips of every segment: validation and head accuracies."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from tsp_core.config import ClipConfig, Precision
from tsp_core.model.heads import HeadOutputs, TSPModel
from tsp_core.model.losses import tsp_losses
from tsp_core.training import metrics
from tsp_core.training.index import ClipIndex, open_index, write_index
from tsp_core.training.loader import Batch, ClipLoader
from tsp_core.training.modes import arrange_for, autocast
from tsp_core.training.samplers import (
    ClipPlan,
    Heads,
    evaluation_batches,
    select_rows,
    validation_plan,
)
from tsp_core.video.sandbox import DecodingLimits
from tsp_core.video.transforms import centre_crop_offsets


def plan_validation(
    index: ClipIndex,
    rows: NDArray[np.int64],
    *,
    heads: Heads,
    clip: ClipConfig,
    clips_per_segment: int,
) -> ClipPlan:
    """Plan the validation clips of the given segments: evenly spaced, centre crop.

    A model with the action head alone is validated on foreground alone.
    """
    top, left = centre_crop_offsets(clip.resize_height, clip.resize_width, clip.crop_size)
    return validation_plan(
        select_rows(rows, index.regions[rows], heads),
        clips_per_segment=clips_per_segment,
        crop_top=top,
        crop_left=left,
    )


@dataclass(frozen=True, kw_only=True)
class ClipSamples:
    """Clips to predict: the index they are in, and which of them.

    Attributes:
        index: The clip index, with global video features where the model needs them.
        plan: The clips.
        clip: What a clip is.
        cache_dir: Local folder for videos of remote stores.
        limits: What decoding a clip may take, in worker processes; None decodes without.
    """

    index: ClipIndex
    plan: ClipPlan
    clip: ClipConfig
    cache_dir: str | None
    limits: DecodingLimits | None = None


@contextlib.contextmanager
def open_samples(
    *,
    videos: pa.Table,
    clips: pa.Table,
    heads: Heads,
    clip: ClipConfig,
    clips_per_segment: int,
    gvf: Mapping[str, NDArray[np.float32]] | None = None,
    cache_dir: str | None = None,
    limits: DecodingLimits | None = None,
) -> Iterator[ClipSamples]:
    """Prepare the validation clips of all given segments, in the order of the table.

    Args:
        videos: Table of the schema VIDEOS.
        clips: Table of the schema CLIPS, the subset to evaluate; rows with status "ok" count.
        heads: "tac" takes foreground segments alone.
        clip: What a clip is.
        clips_per_segment: Evenly spaced clips of each segment.
        gvf: Global video feature by video name, float32 [F] each, where the model needs them.
        cache_dir: Local folder for videos of remote stores.
        limits: What decoding a clip may take, in worker processes; None decodes without.

    Raises:
        ArtifactError: A clip's video is not among the usable videos.
        GvfError: A clip's video has no global video feature.
    """
    with tempfile.TemporaryDirectory(prefix="tsp-samples-") as folder:
        write_index(Path(folder), videos=videos, clips=clips, gvf=gvf)
        index = open_index(Path(folder))
        plan = plan_validation(
            index,
            np.arange(index.clips.num_rows, dtype=np.int64),
            heads=heads,
            clip=clip,
            clips_per_segment=clips_per_segment,
        )
        yield ClipSamples(index=index, plan=plan, clip=clip, cache_dir=cache_dir, limits=limits)


def predict_clips(
    model: TSPModel,
    samples: ClipSamples,
    *,
    device: str,
    precision: Precision,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Run a model over clips.

    Args:
        model: Put on the device and into evaluation mode.
        samples: From `open_samples`.
        device: Of torch, such as "cpu" or "cuda".
        precision: Arithmetic of the encoder.
        batch_size: Clips per forward pass.
        workers: Loader processes; 0 reads in this process.
        progress: Called with the clips done and all.

    Returns:
        One row per clip, in the plan's order: video, label_index (-1 for background), region,
        start_seconds, action_logits and region_logits (lists of float32; null where the model
        has no such head or the clip could not be read).
    """
    index, plan = samples.index, samples.plan
    loader = ClipLoader(
        index,
        samples.clip,
        device=torch.device(device),
        num_workers=workers,
        cache_dir=samples.cache_dir,
        limits=samples.limits,
        apart=frozenset(range(len(index.videos))),
    )
    arrange_for(model, loader.device)
    gathered = _Logits(model, len(plan))
    done = 0
    with contextlib.closing(loader):
        batches = loader.batches(plan, evaluation_batches(len(plan), batch_size=batch_size))
        for batch, outputs in predict_batches(model, batches, precision=precision):
            gathered.put(batch, outputs)
            done += len(batch) + len(batch.failed)
            if progress is not None:
                progress(done, len(plan))
    names: Any = pa.array(index.video_indices[plan.rows])
    columns: dict[str, Any] = {
        "video": pc.take(index.videos["video"], names),
        "label_index": index.label_indices[plan.rows],
        "region": index.regions[plan.rows],
        "start_seconds": index.starts(plan.rows, plan.ratios),
        "action_logits": gathered.column(gathered.action),
        "region_logits": gathered.column(gathered.region),
    }
    return pa.table(columns)


def predict_batches(
    model: TSPModel, batches: Iterable[Batch], *, precision: Precision
) -> Iterator[tuple[Batch, HeadOutputs]]:
    """Yield each batch with the model's outputs; the model is put into evaluation mode.

    A batch none of whose clips could be read has the outputs of one blank clip.
    """
    model.eval()
    for batch in batches:
        shown = batch.or_blank()
        with torch.no_grad(), autocast(shown.clips.device, precision):
            outputs = model(shown.clips, shown.gvf)
        yield batch, outputs


def validation_sums(outputs: HeadOutputs, batch: Batch) -> torch.Tensor:
    """Sums of one batch, float64 [8] as of `metrics.Sums`."""
    shown = batch.or_blank()
    losses = tsp_losses(
        outputs, shown.action_labels, shown.region_labels, alpha_action=1.0, alpha_region=1.0
    )
    return metrics.batch_sums(outputs, losses, shown)


class _Logits:
    """Collects logits by position; clips that were not read stay null."""

    def __init__(self, model: TSPModel, count: int) -> None:
        action, region = model.action_head, model.region_head
        self.action = np.zeros((count, action.out_features if action else 0), dtype=np.float32)
        self.region = np.zeros((count, region.out_features if region else 0), dtype=np.float32)
        self._unread = np.ones(count, dtype=np.bool_)

    def put(self, batch: Batch, outputs: HeadOutputs) -> None:
        self._unread[batch.positions] = False
        for target, logits in (
            (self.action, outputs.action_logits),
            (self.region, outputs.region_logits),
        ):
            if logits is not None:
                target[batch.positions] = logits[: len(batch)].float().cpu().numpy()

    def column(self, logits: NDArray[np.float32]) -> Any:
        """A column of lists; all null where there is no such head."""
        count, width = logits.shape
        if width == 0:
            return pa.nulls(count, pa.list_(pa.float32()))
        return pa.FixedSizeListArray.from_arrays(
            pa.array(logits.ravel()), width, mask=pa.array(self._unread)
        )

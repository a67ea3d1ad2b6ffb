"""Which clips an epoch trains on, in what order and how augmented.

A plan is a pure function of (seed, epoch): nothing is drawn while training goes on, so a run can
be resumed at any batch, and the number of processes does not change what is drawn. Random bits
come from Philox counters keyed by (seed, epoch, purpose); only its raw 64-bit output is used,
whose stream NumPy guarantees, unlike that of its distributions.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsp_core.config import ClipConfig, PretrainConfig

ACTION, NO_ACTION = 0, 1
"""Region labels, in the order of the released label mapping."""

Heads = Literal["tsp", "tac", "region"]
_MASK64 = (1 << 64) - 1


class _Purpose(enum.IntEnum):
    """What random bits are for; each has a stream of its own. Never renumber."""

    ACTION_SEGMENTS = 0
    BACKGROUND_SEGMENTS = 1
    ORDER = 2
    START = 3
    TOP = 4
    LEFT = 5
    FLIP = 6


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Clips in order; all arrays have one entry per clip.

    Attributes:
        rows: int64, rows of the clip index.
        ratios: float64 in [0, 1], where between the first and the last admissible start.
        tops: int64 pixels, top of the crop.
        lefts: int64 pixels, left of the crop.
        flips: bool, whether to mirror left and right.
    """

    rows: NDArray[np.int64]
    ratios: NDArray[np.float64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    flips: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)


def select_rows(
    rows: NDArray[np.int64], regions: NDArray[np.int8], heads: Heads
) -> NDArray[np.int64]:
    """Rows that the heads can learn from: TAC takes foreground alone (paper, section 4.1)."""
    return rows[regions == ACTION] if heads == "tac" else rows


def num_training_clips(regions: NDArray[np.int8], pretrain: PretrainConfig) -> int:
    """Clips of one epoch; the same in every epoch.

    Args:
        regions: Region label of each selected segment.
        pretrain: The training configuration.
    """
    return int(sum(_clips_by_region(regions, pretrain)))


def training_plan(
    rows: NDArray[np.int64],
    regions: NDArray[np.int8],
    *,
    clip: ClipConfig,
    pretrain: PretrainConfig,
    epoch: int,
) -> ClipPlan:
    """Draw an epoch's clips.

    'balanced' takes as many background as foreground clips (paper, section 4.1): the kind with
    fewer segments gives `clips_per_segment` of each, the other as many clips in all, spread
    evenly over its segments. 'official' takes `clips_per_segment` of every segment.

    Args:
        rows: Rows of the clip index to draw from.
        regions: Region label of each.
        clip: Size of the frames and of the crop.
        pretrain: The training configuration; seed, sampling, flips.
        epoch: Counted from 0.
    """
    seed = pretrain.seed
    num_action, num_background = _clips_by_region(regions, pretrain)
    chosen = np.concatenate(
        [
            _spread(rows[regions == ACTION], num_action, seed, epoch, _Purpose.ACTION_SEGMENTS),
            _spread(
                rows[regions == NO_ACTION],
                num_background,
                seed,
                epoch,
                _Purpose.BACKGROUND_SEGMENTS,
            ),
        ]
    )
    count = len(chosen)
    top_range = clip.resize_height - clip.crop_size + 1
    left_range = clip.resize_width - clip.crop_size + 1
    return ClipPlan(
        rows=chosen[_permutation(count, seed, epoch, _Purpose.ORDER)],
        ratios=_uniforms(count, seed, epoch, _Purpose.START),
        tops=(_uniforms(count, seed, epoch, _Purpose.TOP) * top_range).astype(np.int64),
        lefts=(_uniforms(count, seed, epoch, _Purpose.LEFT) * left_range).astype(np.int64),
        flips=(_uniforms(count, seed, epoch, _Purpose.FLIP) < 0.5) & pretrain.flip,
    )


def validation_plan(
    rows: NDArray[np.int64], *, clips_per_segment: int, crop_top: int, crop_left: int
) -> ClipPlan:
    """Evenly spaced clips of every segment, centre crop, no flip, in the order of the rows.

    One clip per segment starts at the segment's beginning, as in the released code.
    """
    count = len(rows) * clips_per_segment
    return ClipPlan(
        rows=np.repeat(rows, clips_per_segment),
        ratios=np.tile(np.linspace(0.0, 1.0, clips_per_segment), len(rows)),
        tops=np.full(count, crop_top, dtype=np.int64),
        lefts=np.full(count, crop_left, dtype=np.int64),
        flips=np.zeros(count, dtype=np.bool_),
    )


def num_batches(num_clips: int, batch_size: int, world_size: int) -> int:
    """Optimiser steps per epoch; the last batches may be smaller."""
    return math.ceil(num_clips / (batch_size * world_size))


def training_batches(
    num_clips: int,
    *,
    batch_size: int,
    world_size: int,
    rank: int,
    first_batch: int = 0,
    even_end: bool = True,
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions in the plan that one process takes, batch by batch.

    Batch b of all processes together is the b-th run of `batch_size * world_size` clips of the
    plan, so W processes see what one process with W times the batch sees. A last batch of less
    than half of that is evened out with the one before it, since BatchNorm's running statistics
    follow the last batches (with a momentum of 0.9, as in R(2+1)D-34, they nearly are those of the
    last). In each of these two every process has the same number of clips, two at least (BatchNorm
    needs more than one value); positions wrap around to the plan's beginning to make that so.

    Args:
        num_clips: Length of the plan.
        batch_size: Clips per process.
        world_size: Processes.
        rank: This process.
        first_batch: Batches to leave out, when an epoch is resumed.
        even_end: Whether to even out a small last batch; the released code does not.
    """
    joined = batch_size * world_size
    count = num_batches(num_clips, batch_size, world_size)
    shares = [batch_size] * count  # clips of each process
    last = num_clips - (count - 1) * joined
    if even_end and count > 1 and 2 * last < joined:
        shares[-2] = math.ceil((joined + last) / (2 * world_size))
        last += joined - shares[-2] * world_size
    shares[-1] = min(max(math.ceil(last / world_size), 2), batch_size)
    begin = sum(shares[:first_batch]) * world_size
    for share in shares[first_batch:]:
        yield (begin + rank * share + np.arange(share)) % num_clips
        begin += share * world_size


def evaluation_batches(
    num_clips: int, *, batch_size: int, world_size: int = 1, rank: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield positions so that every clip is taken once, by exactly one process.

    Processes take contiguous parts, so that each opens as few videos as possible.
    """
    part = np.array_split(np.arange(num_clips), world_size)[rank]
    for begin in range(0, len(part), batch_size):
        yield part[begin : begin + batch_size]


def _clips_by_region(regions: NDArray[np.int8], pretrain: PretrainConfig) -> tuple[int, int]:
    per_segment = pretrain.clips_per_segment
    action = int(np.count_nonzero(regions == ACTION)) * per_segment
    background = int(np.count_nonzero(regions == NO_ACTION)) * per_segment
    if pretrain.heads == "tac":
        return action, 0
    if pretrain.sampling == "balanced":
        action = background = min(action, background)
    return action, background


def _spread(
    rows: NDArray[np.int64], count: int, seed: int, epoch: int, purpose: _Purpose
) -> NDArray[np.int64]:
    """Choose `count` rows in random order, each as often as any other, give or take one."""
    shuffled = rows[_permutation(len(rows), seed, epoch, purpose)]
    return np.resize(shuffled, count)


def _permutation(count: int, seed: int, epoch: int, purpose: _Purpose) -> NDArray[np.int64]:
    return np.argsort(_raw(count, seed, epoch, purpose), kind="stable")


def _uniforms(count: int, seed: int, epoch: int, purpose: _Purpose) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1): the upper 53 of 64 random bits."""
    bits = _raw(count, seed, epoch, purpose) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _raw(count: int, seed: int, epoch: int, purpose: _Purpose) -> NDArray[np.uint64]:
    key = np.array([seed & _MASK64, (epoch << 8) | purpose], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(count)

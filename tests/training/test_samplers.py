from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from tsp_core.config import ClipConfig, PretrainConfig
from tsp_core.training.samplers import (
    ACTION,
    NO_ACTION,
    ClipPlan,
    evaluation_batches,
    num_batches,
    num_training_clips,
    select_rows,
    training_batches,
    training_plan,
    validation_plan,
)

IntArray = NDArray[np.int64]
REGIONS = np.array([0, 1, 0, 1, 1, 1, 1], dtype=np.int8)  # two actions, five backgrounds
ROWS = np.arange(100, 107)
EXPECTED_ROWS = [100, 103, 102, 104, 106, 106, 101, 102]
EXPECTED_RATIOS = [0.7122142960324449, 0.07050661802753055, 0.3939777489962194]


def plan(epoch: int = 0, regions: np.ndarray = REGIONS, **pretrain: object) -> ClipPlan:
    config = PretrainConfig(**{"clips_per_segment": 5, **pretrain})
    rows = np.arange(100, 100 + len(regions))
    rows, regions = (
        select_rows(rows, regions, config.heads),
        regions[regions == ACTION if config.heads == "tac" else slice(None)],
    )
    drawn = training_plan(rows, regions, clip=ClipConfig(), pretrain=config, epoch=epoch)
    assert len(drawn) == num_training_clips(regions, config)
    return drawn


def equal(one: ClipPlan, other: ClipPlan) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_balanced_takes_as_many_background_as_foreground_clips() -> None:
    counts = Counter(plan().rows.tolist())
    assert counts[100] == counts[102] == 5
    background = [counts[row] for row in (101, 103, 104, 105, 106)]
    assert background == [2] * 5  # ten clips, spread evenly
    flipped = Counter(plan(regions=(1 - REGIONS).astype(np.int8)).rows.tolist())
    assert flipped[101] == 2
    assert flipped[100] == 5


def test_over_the_epochs_every_segment_of_the_larger_kind_gets_its_turn() -> None:
    regions = np.array([ACTION] + [NO_ACTION] * 9, dtype=np.int8)
    seen = [set(plan(epoch, regions, clips_per_segment=2).rows.tolist()) for epoch in range(30)]
    assert all(len(rows) == 3 for rows in seen)  # the action twice, two of nine backgrounds
    assert set.union(*seen) == set(range(100, 110))


def test_official_takes_every_segment() -> None:
    counts = Counter(plan(sampling="official").rows.tolist())
    assert counts == dict.fromkeys(ROWS, 5)


def test_tac_takes_foreground_alone() -> None:
    for sampling in ("balanced", "official"):
        assert Counter(plan(heads="tac", sampling=sampling).rows.tolist()) == {100: 5, 102: 5}


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    assert equal(plan(3), plan(3))
    assert not np.array_equal(plan(3).rows, plan(4).rows)
    assert not np.array_equal(plan(3).ratios, plan(4).ratios)
    assert not np.array_equal(plan(3).rows, plan(3, seed=1).rows)
    assert equal(plan(0, seed=2**64 + 5), plan(0, seed=5))  # seeds count modulo 2**64


def test_the_stream_of_random_numbers_never_changes() -> None:
    """A resumed run may meet another NumPy release; these are the first draws of seed 42."""
    drawn = plan(seed=42)
    assert drawn.rows[:8].tolist() == EXPECTED_ROWS
    assert drawn.ratios[:3].tolist() == EXPECTED_RATIOS


def test_ratios_crops_and_flips_cover_their_ranges() -> None:
    drawn = plan(regions=np.tile(REGIONS, 200))
    assert drawn.ratios.min() >= 0
    assert drawn.ratios.max() < 1
    assert abs(drawn.ratios.mean() - 0.5) < 0.02
    assert set(drawn.tops.tolist()) == set(range(128 - 112 + 1))
    assert set(drawn.lefts.tolist()) == set(range(171 - 112 + 1))
    assert abs(drawn.flips.mean() - 0.5) < 0.03
    assert not plan(flip=False).flips.any()


def test_validation_is_evenly_spaced_and_central() -> None:
    drawn = validation_plan(np.array([7, 9]), clips_per_segment=3, crop_top=8, crop_left=30)
    assert drawn.rows.tolist() == [7, 7, 7, 9, 9, 9]
    assert drawn.ratios.tolist() == [0, 0.5, 1, 0, 0.5, 1]
    assert set(drawn.tops.tolist()) == {8}
    assert set(drawn.lefts.tolist()) == {30}
    assert not drawn.flips.any()
    one = validation_plan(np.array([7, 9]), clips_per_segment=1, crop_top=8, crop_left=30)
    assert one.ratios.tolist() == [0, 0]  # the beginning, as in the released code


def batches_of(num_clips: int, size: int, world_size: int, **options: bool) -> list[list[IntArray]]:
    """The positions of each process, batch by batch."""
    return [
        list(
            training_batches(
                num_clips, batch_size=size, world_size=world_size, rank=rank, **options
            )
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("even_end", [True, False])
@pytest.mark.parametrize("num_clips", [1, 2, 7, 8, 9, 13, 16, 17, 25, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_each_batch_of_one_process(
    num_clips: int, world_size: int, even_end: bool
) -> None:
    size = 4
    parts = batches_of(num_clips, size, world_size, even_end=even_end)
    count = num_batches(num_clips, size, world_size)
    assert [len(part) for part in parts] == [count] * world_size
    for batches in zip(*parts, strict=True):
        assert len({len(batch) for batch in batches}) == 1  # equal counts per process
        assert 2 <= len(batches[0]) <= size  # BatchNorm
    joined = np.concatenate([np.concatenate(batches) for batches in zip(*parts, strict=True)])
    assert joined[:num_clips].tolist() == list(range(num_clips))
    assert np.array_equal(joined, np.arange(len(joined)) % num_clips)  # wraps around at the end
    assert len(joined) - num_clips < 2 * world_size


@pytest.mark.parametrize(
    ("num_clips", "evened", "released"),
    [
        (64, [32, 32], [32, 32]),
        (80, [32, 32, 16], [32, 32, 16]),  # half a batch is enough
        (79, [32, 24, 23], [32, 32, 15]),
        (65, [32, 17, 16], [32, 32, 2]),  # BatchNorm needs two clips, the first comes again
        (9, [9], [9]),
    ],
)
def test_a_small_last_batch_is_evened_out(
    num_clips: int, evened: list[int], released: list[int]
) -> None:
    for even_end, sizes in ((True, evened), (False, released)):
        (batches,) = batches_of(num_clips, 32, 1, even_end=even_end)
        assert [len(batch) for batch in batches] == sizes


def test_an_epoch_is_resumed_at_any_batch() -> None:
    assert 50 % (4 * 2) < 4  # so that the last two batches are evened out
    whole = list(training_batches(50, batch_size=4, world_size=2, rank=1))
    for first in range(len(whole) + 1):
        rest = training_batches(50, batch_size=4, world_size=2, rank=1, first_batch=first)
        assert [b.tolist() for b in rest] == [b.tolist() for b in whole[first:]]


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_takes_every_clip_exactly_once(world_size: int) -> None:
    parts = [
        np.concatenate([*evaluation_batches(13, batch_size=3, world_size=world_size, rank=rank)])
        for rank in range(world_size)
    ]
    assert np.concatenate(parts).tolist() == list(range(13))


def test_planning_an_epoch_of_160000_clips_takes_a_moment() -> None:
    regions = np.tile(np.array([ACTION, NO_ACTION], dtype=np.int8), 16_000)
    begin = time.perf_counter()
    assert len(plan(regions=regions)) == 160_000
    assert time.perf_counter() - begin < 2

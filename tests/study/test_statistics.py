"""Means, spreads and differences on numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tsp_core.study.statistics import Spread, difference, spread_of, summarise


def test_mean_and_sample_deviation() -> None:
    spread = spread_of([1.0, 2.0, 6.0])
    assert spread.mean == pytest.approx(3.0)
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert spread.count == 3
    assert (spread.low, spread.high) == pytest.approx((3 - math.sqrt(7), 3 + math.sqrt(7)))


def test_one_value_has_no_deviation() -> None:
    spread = spread_of([0.25])
    assert (spread.mean, spread.deviation, spread.count) == (0.25, None, 1)
    assert spread.low == spread.high == 0.25


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_nothing_to_summarise_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="give at least one, all of them finite"):
        spread_of(values)


@pytest.mark.parametrize(
    ("mean", "deviation", "is_clear"),
    [(0.36, 0.02, True), (0.34, 0.02, False), (0.24, 0.02, True), (0.325, 0.0, False)],
)
def test_a_difference_is_clear_beyond_both_deviations(
    mean: float, deviation: float, is_clear: bool
) -> None:
    baseline = Spread(mean=0.3, deviation=0.03, count=3)
    found = difference(Spread(mean=mean, deviation=deviation, count=3), baseline)
    assert found.value == pytest.approx(mean - 0.3)
    assert found.spread == pytest.approx(0.03 + deviation)
    assert found.is_clear is is_clear


def test_one_seed_makes_no_difference_clear() -> None:
    single = Spread(mean=0.9, deviation=None, count=1)
    assert difference(single, Spread(mean=0.1, deviation=0.0, count=3)).is_clear is None


def test_a_figure_that_some_runs_lack_is_summarised_over_the_others() -> None:
    spreads = summarise([{"map": 0.2, "auc": 0.8}, {"map": 0.4}, {"map": 0.6, "late": 1.0}])
    assert list(spreads) == ["map", "auc", "late"]
    assert (spreads["map"].mean, spreads["map"].deviation) == pytest.approx((0.4, 0.2))
    assert (spreads["auc"].count, spreads["auc"].deviation) == (1, None)

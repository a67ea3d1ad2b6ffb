"""What several runs of each variant say together: means, spreads, and which differences are clear.

A difference between a variant and the baseline is called clear when it is larger than the two
standard deviations together, that is, when the intervals mean ± standard deviation do not meet.
With a handful of seeds this is a rule of thumb, not a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and spread of one figure over the runs of one variant.

    Attributes:
        mean: Of the values.
        deviation: Sample standard deviation (n - 1); None of a single value.
        count: Values.
    """

    mean: float
    deviation: float | None
    count: int

    @property
    def low(self) -> float:
        """Mean minus one standard deviation."""
        return self.mean - (self.deviation or 0.0)

    @property
    def high(self) -> float:
        """Mean plus one standard deviation."""
        return self.mean + (self.deviation or 0.0)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How a variant differs from the baseline in one figure.

    Attributes:
        value: Variant's mean minus the baseline's.
        spread: Sum of the two standard deviations; None where one has a single value.
    """

    value: float
    spread: float | None

    @property
    def is_clear(self) -> bool | None:
        """Whether it is larger than the spreads; None where they are not known."""
        return None if self.spread is None else abs(self.value) > self.spread


def spread_of(values: Sequence[float]) -> Spread:
    """Summarise the values of one figure.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"values: {list(values)}; give at least one, all of them finite")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean=mean, deviation=None, count=1)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Spread(mean=mean, deviation=math.sqrt(squares / (len(values) - 1)), count=len(values))


def difference(variant: Spread, baseline: Spread) -> Difference:
    """Compare a variant with the baseline."""
    spreads = (variant.deviation, baseline.deviation)
    spread = None if None in spreads else math.fsum(value or 0.0 for value in spreads)
    return Difference(value=variant.mean - baseline.mean, spread=spread)


def summarise(figures: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Summarise the runs of one variant, figure by figure.

    Args:
        figures: Of each run, by key; a figure that a run lacks is summarised without it.

    Returns:
        By key, in the order in which the runs have them.
    """
    keys = dict.fromkeys(key for run in figures for key in run)
    return {key: spread_of([run[key] for run in figures if key in run]) for key in keys}

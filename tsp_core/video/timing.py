"""Measures the frame rate of a video from the timestamps of its decoded frames. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in (
        *("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60", "120"),
        *("5", "6", "7.5", "8", "10", "12", "12.5", "15", "20"),
    )
)


def measure_frame_rate(
    pts: NDArray[np.int64], time_base: Fraction, nominal: Sequence[Fraction | None] = ()
) -> tuple[Fraction, bool]:
    """Return frames per second and whether the rate varies.

    A rate is constant when the timestamps are evenly spaced but for the rounding to the stream's
    ticks (Matroska's milliseconds turn 30 fps into steps of 33 and 34). The rates that the header
    names and common ones are preferred to the mean where they fit the timestamps.

    Args:
        pts: Strictly increasing timestamps in ticks.
        time_base: Seconds per tick.
        nominal: Rates that the header names, most trusted first; None and zero are passed over.

    Returns:
        The rate (for a variable one its mean), and True when it varies. One frame has the header's
        rate, or 1.
    """
    named = [rate for rate in nominal if rate]
    if len(pts) == 1:
        return (named or [Fraction(1)])[0], False
    span = int(pts[-1] - pts[0])
    mean = Fraction(len(pts) - 1, span) / time_base
    if _deviation(pts, mean * time_base) < 1e-6:
        return mean, False
    common = sorted(_STANDARD_RATES, key=lambda rate: abs(rate - mean))
    for rate in (*named, *common):
        if _is_even(pts, rate * time_base, num_ticks=1):
            return rate, False
    # The mean's own end points are rounded too, which doubles what rounding can amount to.
    return mean, not _is_even(pts, mean * time_base, num_ticks=2)


def _is_even(pts: NDArray[np.int64], frames_per_tick: Fraction, *, num_ticks: int) -> bool:
    """Whether frames deviate by no more than some ticks, and these are small beside a frame."""
    return (
        2 * num_ticks * frames_per_tick <= 1
        and _deviation(pts, frames_per_tick) <= num_ticks + 1e-6
    )


def _deviation(pts: NDArray[np.int64], frames_per_tick: Fraction) -> float:
    """Spread, in ticks, of the timestamps about even spacing."""
    even = np.arange(len(pts)) * float(1 / frames_per_tick)
    return float(np.ptp((pts - pts[0]) - even))

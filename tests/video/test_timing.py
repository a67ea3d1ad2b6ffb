from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tsp_core.video.timing import measure_frame_rate

MILLISECONDS = Fraction(1, 1000)


def rounded(rate: Fraction, count: int, time_base: Fraction, rounding=round) -> np.ndarray:
    return np.array([rounding(i / rate / time_base) for i in range(count)], dtype=np.int64)


@pytest.mark.parametrize(
    "rate", ["24000/1001", "25", "30000/1001", "30", "60000/1001", "12.5", "10"]
)
@pytest.mark.parametrize("rounding", [round, int], ids=["rounded", "cut"])
@pytest.mark.parametrize("count", [2, 50, 20_000])
def test_rounding_to_the_containers_ticks_is_constant(rate, rounding, count):
    rate = Fraction(rate)
    pts = rounded(rate, count, MILLISECONDS, rounding)
    assert measure_frame_rate(pts, MILLISECONDS, [rate]) == (rate, False) or count == 2


def test_common_rates_are_recognised_without_a_header():
    pts = rounded(Fraction(30000, 1001), 5000, MILLISECONDS)
    assert measure_frame_rate(pts, MILLISECONDS) == (Fraction(30000, 1001), False)


def test_an_unusual_rate_without_a_header_is_close():
    rate, is_variable = measure_frame_rate(
        rounded(Fraction(981, 50), 2000, MILLISECONDS), MILLISECONDS
    )
    assert not is_variable
    assert float(rate) == pytest.approx(19.62, abs=1e-3)


def test_even_steps_overrule_the_header():
    pts = np.arange(0, 439 * 871, 439)
    assert measure_frame_rate(pts, Fraction(1, 10900), [Fraction(25)]) == (
        Fraction(10900, 439),
        False,
    )


@pytest.mark.parametrize(
    "pts",
    [
        np.delete(np.arange(100), 50),  # a dropped frame where a tick is a frame
        np.delete(rounded(Fraction(30), 100, MILLISECONDS), 50),
        np.cumsum(np.resize([33, 40, 20], 100)),
        np.concatenate([np.arange(0, 1000, 33), np.arange(1000, 3000, 66)]),
    ],
)
def test_uneven_frames_are_variable_at_their_mean_rate(pts):
    rate, is_variable = measure_frame_rate(pts, MILLISECONDS, [Fraction(30)])
    assert is_variable
    assert rate == Fraction(len(pts) - 1, int(pts[-1] - pts[0])) * 1000


def test_one_frame_has_the_headers_rate():
    one = np.array([3])
    assert measure_frame_rate(one, MILLISECONDS, [None, Fraction(24)]) == (Fraction(24), False)
    assert measure_frame_rate(one, MILLISECONDS, [Fraction(0), None]) == (Fraction(1), False)

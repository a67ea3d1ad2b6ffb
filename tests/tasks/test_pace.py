"""Rates and the time left, from progress at known times."""

from __future__ import annotations

import pytest

from tasks.pace import WINDOW_SECONDS, Pace, duration
from tsp_core.stages.base import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def videos(done: float, total: float = 100, **fields: object) -> Progress:
    return Progress(stage="gvf", done=done, total=total, unit="videos", **fields)  # type: ignore[arg-type]


def paced(steps: list[tuple[float, Progress]]) -> Pace:
    """A pace that was told each progress so many seconds after the beginning."""
    clock = Clock()
    pace = Pace(clock)
    for seconds, progress in steps:
        clock.now = 1000.0 + seconds
        pace.add(progress)
    return pace


@pytest.mark.parametrize("begin", [0, 40])
@pytest.mark.parametrize("rate", [0.25, 3.0])
def test_what_was_there_before_counts_for_no_rate(begin: int, rate: float) -> None:
    pace = paced([(0, videos(begin)), (10, videos(begin + 10 * rate))])
    assert pace.rates() == {"videos": pytest.approx(rate)}
    assert pace.seconds_left() == pytest.approx((100 - begin - 10 * rate) / rate)


def test_rates_are_those_of_the_last_minutes() -> None:
    slow = [(t, videos(t / 100)) for t in range(0, 1000, 100)]
    fast = [(1000 + t, videos(10 + t / 10)) for t in range(0, int(WINDOW_SECONDS) + 100, 10)]
    assert paced([*slow, *fast]).rates()["videos"] == pytest.approx(0.1)


def test_a_finished_stage_has_the_rate_of_all_of_it() -> None:
    steps = [(0, videos(0)), (900, videos(10)), (1000, videos(100))]
    assert paced(steps).rates()["videos"] == pytest.approx(0.1)


def test_clips_have_their_own_rate() -> None:
    pace = paced([(0, videos(0)), (4, videos(2, counts={"clips": 100}))])
    assert pace.rates() == {"clips": 25.0, "videos": 0.5}
    assert pace.text() == "2 of 100 videos, 3 min 16 s left, 25 clips/s, 0.5 videos/s"


def test_other_work_begins_anew() -> None:
    pace = paced([(0, videos(0)), (10, videos(90)), (20, videos(0, total=7))])
    assert pace.rates() == {}
    assert pace.seconds_left() is None
    assert pace.text() == "0 of 7 videos"


def test_nothing_is_said_before_anything_is_known() -> None:
    assert Pace().text() == ""
    assert Pace().rates() == {}
    assert Pace().seconds_left() is None
    assert paced([(0, videos(3, message="1 of 9 shards"))]).text() == (
        "3 of 100 videos, 1 of 9 shards"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "under 1 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (600, "10 min"),
        (3599, "59 min"),
        (3660, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

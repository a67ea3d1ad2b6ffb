from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tsp_core.features.prefetch import Prefetched


def numbers(end: int, produced: list[int], closed: list[bool]) -> Iterator[int]:
    try:
        for number in range(end):
            produced.append(number)
            yield number
    finally:
        closed.append(True)


def test_items_come_in_order_and_the_thread_ends() -> None:
    produced: list[int] = []
    closed: list[bool] = []
    with Prefetched(numbers(20, produced, closed), size=2) as items:
        assert list(items) == list(range(20))
    assert closed == [True]
    assert not any(thread.name == "tsp-decode" for thread in threading.enumerate())


def test_an_error_reaches_the_consumer_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found: list[int] = []
    with pytest.raises(ValueError, match="broken"), Prefetched(failing(), size=2) as items:
        found.extend(items)
    assert found == [1]


def test_leaving_early_stops_the_source() -> None:
    produced: list[int] = []
    closed: list[bool] = []
    with Prefetched(numbers(1000, produced, closed), size=2) as items:
        assert next(items) == 0
    assert closed == [True]
    assert len(produced) <= 5

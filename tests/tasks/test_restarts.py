"""What a stage does when the Prefect server goes away under it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import restarts
from tasks.restarts import is_server_gone, through_restarts
from tsp_core.errors import StorageUnavailableError

REQUEST = httpx.Request("GET", "http://127.0.0.1:9/api")


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def status(code: int) -> Exception:
    return httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(code))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), True),
        (caused(RuntimeError("no slots"), httpx.ConnectError("refused")), True),
        (ExceptionGroup("many", [ValueError(), httpx.ReadTimeout("slow")]), True),
        (status(503), True),
        (status(404), False),
        (ValueError("a bug"), False),
        (caused(StorageUnavailableError("store"), httpx.ConnectError("refused")), False),
    ],
)
def test_errors_of_the_server_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_server_gone(error) is expected


def failing(times: int, error: Exception) -> Callable[[], int]:
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass only by sleeping; the last item is now."""
    times = [0.0]

    def pass_by(seconds: float) -> None:
        times.append(times[-1] + seconds)

    monkeypatch.setattr(
        restarts, "time", SimpleNamespace(monotonic=lambda: times[-1], sleep=pass_by)
    )
    monkeypatch.setattr(restarts, "_comes_back", lambda deadline: times[-1] < deadline)
    return times


def test_work_is_done_again_when_the_server_is_back(clock: list[float]) -> None:
    assert through_restarts(failing(2, httpx.ConnectError("refused"))) == 3


def test_a_server_that_is_up_but_busy_is_given_longer_and_longer_pauses(clock: list[float]) -> None:
    assert through_restarts(failing(12, status(503))) == 13
    pauses = [after - before for before, after in itertools.pairwise(clock)]
    assert pauses == [2, 4, 8, 16, *[30] * 8]


def test_a_server_that_only_says_that_it_is_well_ends_the_patience(clock: list[float]) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        through_restarts(failing(999, status(503)), patience_seconds=100)
    assert clock[-1] == 100


def test_restarts_far_apart_each_have_the_whole_patience(clock: list[float]) -> None:
    refused = failing(4, httpx.ConnectError("refused"))

    def long_work() -> int:
        clock.append(clock[-1] + 101)
        return refused()

    assert through_restarts(long_work, patience_seconds=100) == 5
    refused = failing(999, httpx.ConnectError("refused"))
    with pytest.raises(httpx.ConnectError):  # but not without end
        through_restarts(long_work, patience_seconds=100)


def test_other_errors_and_a_server_that_stays_away_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a bug"):
        through_restarts(failing(1, ValueError("a bug")))
    monkeypatch.setattr(restarts, "_POLL_SECONDS", 0.01)
    nobody = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with nobody, pytest.raises(httpx.ConnectError, match="refused"):
        through_restarts(failing(1, httpx.ConnectError("refused")), patience_seconds=0.05)

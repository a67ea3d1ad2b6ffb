"""What a stage does when the Prefect server goes away under it."""

from __future__ import annotations

from collections.abc import Callable

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


def test_work_is_done_again_when_the_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "_comes_back", lambda patience: True)
    assert through_restarts(failing(2, httpx.ConnectError("refused"))) == 3


def test_other_errors_and_a_server_that_stays_away_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a bug"):
        through_restarts(failing(1, ValueError("a bug")))
    monkeypatch.setattr(restarts, "_POLL_SECONDS", 0.01)
    nobody = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with nobody, pytest.raises(httpx.ConnectError, match="refused"):
        through_restarts(failing(1, httpx.ConnectError("refused")), patience_seconds=0.05)
    monkeypatch.setattr(restarts, "_comes_back", lambda patience: True)
    with pytest.raises(httpx.ConnectError, match="refused"):
        through_restarts(failing(99, httpx.ConnectError("refused")))

"""Progress is throttled but complete, and heard by all; logs; workers."""

from __future__ import annotations

import logging
from contextvars import copy_context
from threading import Thread
from typing import Any

import pytest
from prefect.logging.handlers import APILogHandler

from tasks import progress as module
from tasks.logs import forward_logs
from tasks.progress import ProgressReporter, observed_by
from tasks.workers import num_workers
from tsp_core.config import Config, RuntimeConfig
from tsp_core.stages.base import Progress


def step(done: float, total: float = 10) -> Progress:
    return Progress(stage="gvf", done=done, total=total, unit="videos")


class Ui:
    """Takes what a live artifact shows."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str]] = []

    def __call__(self, key: str, *, type: str) -> Ui:
        assert (key, type) == ("key", "progress")
        return self

    def show(self, data: float, description: str) -> None:
        self.sent.append((data, description))


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> Ui:
    ui = Ui()
    monkeypatch.setattr(module, "LiveArtifact", ui)
    return ui


def test_only_the_first_and_last_of_a_quick_run_are_sent(ui: Ui) -> None:
    report = ProgressReporter("key", min_interval_seconds=3600)
    for done in range(11):
        report(step(done))
    assert [percent for percent, _ in ui.sent] == [0.0, 100.0]
    assert ui.sent[0][1] == "0 of 10 videos"
    assert ui.sent[1][1].startswith("10 of 10 videos, ")


def test_everything_is_sent_when_there_is_time(ui: Ui) -> None:
    report = ProgressReporter("key", min_interval_seconds=0)
    for done in (0, 2.5, 20):
        report(step(done))
    assert [percent for percent, _ in ui.sent] == [0.0, 25.0, 100.0]
    ProgressReporter("key")(step(0, total=0))
    assert ui.sent[-1][0] == 100.0


def test_work_of_a_moment_is_not_shown_unless_it_is_wanted(ui: Ui) -> None:
    report = ProgressReporter("key", min_interval_seconds=3600, show_short_work=False)
    for done in range(11):
        report(step(done))
    assert ui.sent == []
    report = ProgressReporter("key", min_interval_seconds=0, show_short_work=False)
    for done in (5, 10):
        report(step(done))
    assert [percent for percent, _ in ui.sent] == [50.0, 100.0]


def test_the_observer_hears_everything_in_threads_too(ui: Ui) -> None:
    seen: list[float] = []
    report = ProgressReporter("key", min_interval_seconds=3600)

    def work() -> None:
        for done in range(11):
            report(step(done))

    with observed_by(lambda progress: seen.append(progress.done)):
        thread = Thread(target=copy_context().run, args=(work,))
        thread.start()
        thread.join()
    report(step(5))
    assert seen == list(range(11))


def test_all_observers_hear(ui: Ui) -> None:
    seen: list[str] = []
    with observed_by(lambda _: seen.append("outer")), observed_by(lambda _: seen.append("inner")):
        ProgressReporter("key")(step(1))
    assert seen == ["outer", "inner"]


def test_logs_are_forwarded_once() -> None:
    loggers = [logging.getLogger(name) for name in ("tsp_core", "tasks", "flows")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    try:
        forward_logs()
        forward_logs()
        for logger in loggers:
            assert [type(item) for item in logger.handlers].count(APILogHandler) == 1
            assert logger.isEnabledFor(logging.INFO)
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers


def runtime(**fields: Any) -> Config:
    return Config(runtime=RuntimeConfig(**fields))


def test_workers() -> None:
    assert num_workers(runtime(workers=5), "gvf") == 5
    assert num_workers(runtime(device="cuda"), "export") == 1
    assert num_workers(runtime(device="cpu"), "ingest") >= num_workers(runtime(device="cpu"), "gvf")


def test_workers_follow_the_cores_that_are_meant_for_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TSP_CORES", "1")
    assert num_workers(runtime(device="cpu"), "ingest") == 1

"""What the log says of where a run can be seen."""

from __future__ import annotations

import logging

import pytest
from prefect.client.base import ServerType

from tasks import flow_runs


def test_a_study_tells_once_how_to_watch_its_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flow_runs, "determine_server_type", lambda: ServerType.EPHEMERAL)
    flow_runs._tell_how_to_watch.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            flow_runs.where_to_watch(None)
    assert caplog.text.count("to watch in a browser") == 1

"""Artifacts of the Prefect UI that change while a run goes on, and what is shown at all.

What cannot be shown costs a warning, not the run.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import ParamSpec
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.exceptions import PrefectException

from tsp_core.errors import TspError

P = ParamSpec("P")
OnShown = Callable[[str, str], None]
"""Told what is shown, and its address in the UI."""
_logger = logging.getLogger(__name__)


def best_effort(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a server or store that does not answer into a warning."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except (httpx.HTTPError, PrefectException, OSError, TspError) as error:
            _logger.warning("%s: this is not shown in the UI: %s", function.__name__, error)

    return guarded


def artifact_address(artifact_id: UUID) -> str:
    """Address of an artifact, relative to that of the UI."""
    return f"/artifacts/artifact/{artifact_id}"


class LiveArtifact:
    """One artifact that is made once and changed in place; make it inside a flow or task run.

    Changes go to the API without an event for each: events are stored with all that they carry,
    and a training of days makes many thousands of changes.

    Args:
        key: Key of the artifact.
        type: "markdown" or "progress".
    """

    def __init__(self, key: str, *, type: str) -> None:
        self.key = key
        self._type = type
        self._id: UUID | None = None
        self._lock = threading.Lock()

    @property
    def address(self) -> str | None:
        """Its address, relative to that of the UI; None as long as it is not made."""
        return None if self._id is None else artifact_address(self._id)

    @best_effort
    def show(self, data: str | float, description: str) -> None:
        """Show data: Markdown, or percent done; the description is the line on its card."""
        with self._lock:
            if self._id is None:
                self._make(data, description)
                return
        with get_client(sync_client=True) as client:
            client.request(
                "PATCH",
                "/artifacts/{id}",
                json={"data": data, "description": description},
                path_params={"id": self._id},
            )

    def _make(self, data: str | float, description: str) -> None:
        ids = {"flow_run_id": runtime.flow_run.id, "task_run_id": runtime.task_run.id}
        wanted = ArtifactCreate(
            key=self.key, type=self._type, data=data, description=description, **ids
        )
        with get_client(sync_client=True) as client:
            self._id = client.create_artifact(wanted).id

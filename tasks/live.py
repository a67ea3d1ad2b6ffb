"""Artifacts of the Prefect UI that change while a run goes on, and what is shown at all.

What cannot be shown costs a warning, not the run.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.exceptions import PrefectException

from tasks.outbox import Outbox
from tasks.restarts import is_server_gone
from tsp_core.errors import TspError

P = ParamSpec("P")
OnMade = Callable[[str], None]
OnShown = Callable[[str, str], None]
"""Told what is shown, and its address in the UI."""
FLUSH_SECONDS = 10.0
"""How long the end of a stage waits for a server that hangs."""
_CLIENT: dict[str, Any] = {"timeout": 15.0}
_NOT_SHOWN = (httpx.HTTPError, PrefectException, OSError, TspError)
_outbox = Outbox()
_logger = logging.getLogger(__name__)


def best_effort(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a server or store that does not answer into a warning."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except _NOT_SHOWN as error:
            _logger.warning("%s: this is not shown in the UI: %s", function.__name__, error)

    return guarded


def artifact_address(artifact_id: UUID) -> str:
    """Address of an artifact, relative to that of the UI."""
    return f"/artifacts/artifact/{artifact_id}"


def _nobody(_: str) -> None:
    """Nobody wants to know."""


class LiveArtifact:
    """One artifact that is made once and changed in place; make it inside a flow or task run.

    It is sent from a thread of its own (`tasks.outbox`), so that nobody waits for the server.
    Changes go to the API without an event for each: events are stored with all that they carry,
    and a training of days makes many thousands of changes.

    Args:
        key: Key of the artifact.
        type: "markdown" or "progress".
        on_made: Told its address, relative to that of the UI, by that thread, once it is made.
    """

    def __init__(self, key: str, *, type: str, on_made: OnMade = _nobody) -> None:
        self.key = key
        self._type = type
        self._on_made = on_made
        self._id: UUID | None = None
        self._is_failing = False

    @property
    def address(self) -> str | None:
        """Its address, relative to that of the UI; None as long as it is not made."""
        return None if self._id is None else artifact_address(self._id)

    def show(self, data: str | float, description: str) -> None:
        """Show data: Markdown, or percent done; the description is the line on its card.

        It is shown soon, unless something else is by then.
        """
        wanted = ArtifactCreate(
            key=self.key,
            type=self._type,
            data=data,
            description=description,
            flow_run_id=runtime.flow_run.id,
            task_run_id=runtime.task_run.id,
        )
        _outbox.put(self, partial(copy_context().run, self._send, wanted))

    def _send(self, wanted: ArtifactCreate) -> bool:
        """Make or change the artifact; False when the server does not answer now."""
        try:
            # Not the client of the run, which may have ended by now.
            with get_client(httpx_settings=_CLIENT, sync_client=True) as client:
                if self._id is None:
                    self._id = client.create_artifact(wanted).id
                    self._on_made(artifact_address(self._id))
                else:
                    body = {"data": wanted.data, "description": wanted.description}
                    place = {"id": self._id}
                    client.request("PATCH", "/artifacts/{id}", json=body, path_params=place)
        except _NOT_SHOWN as error:
            if not self._is_failing:  # once, and not every few seconds while a server is away
                _logger.warning("%s: this is not shown in the UI: %s", self.key, error)
            self._is_failing = True
            return not is_server_gone(error)
        self._is_failing = False
        return True


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait until what live artifacts show is sent, or so long."""
    _outbox.flush(seconds)

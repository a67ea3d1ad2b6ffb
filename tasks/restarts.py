"""Bridges a restart of the Prefect server under a run.

A request of a client that has been connected is repeated by Prefect itself. What begins while the
server is away (each task asks for its concurrency slots with a new client) fails; then the stage
waits for the server and is planned again, and what is done by then is found.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx
from prefect.client.orchestration import get_client

from tsp_core.errors import TspError

R = TypeVar("R")
PATIENCE_SECONDS = 600.0
"""An update of the server takes minutes; after that it is better to fail and be seen."""
_POLL_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 30.0
_MAX_RESTARTS = 10
_FIRST_SERVER_ERROR = 500
_logger = logging.getLogger(__name__)


def through_restarts(work: Callable[[], R], *, patience_seconds: float = PATIENCE_SECONDS) -> R:
    """Do something repeatable; when the server goes away meanwhile, wait for it and do it again.

    A server that has just started can answer that it is healthy and still refuse what is asked of
    it, while its database is busy. So the work is tried again, after longer and longer pauses,
    until the patience since the first failure is used up. Work that went on for longer than that
    before it failed has met another restart, and the patience begins anew.

    Raises:
        Exception: What the work raises for another reason, or when the server does not come back.
    """
    restarts = 0
    deadline = pause_seconds = 0.0
    while True:
        started = time.monotonic()
        try:
            return work()
        except Exception as error:
            if not is_server_gone(error):
                raise
            failed = time.monotonic()
            if restarts == 0 or failed - started > patience_seconds:
                restarts += 1
                deadline = failed + patience_seconds
                pause_seconds = _POLL_SECONDS
            _logger.warning("the Prefect server does not answer; waiting for it")
            time.sleep(min(pause_seconds, max(0.0, deadline - failed)))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            if restarts > _MAX_RESTARTS or not _comes_back(deadline):
                raise
            _logger.info("the Prefect server is back; going on")


def is_server_gone(error: BaseException) -> bool:
    """Tell whether an error comes from Prefect's API being away, and not from a stage."""
    chain = list(_chain(error))
    if any(isinstance(item, TspError) for item in chain):
        return False
    return any(
        isinstance(item, httpx.TransportError)
        or (
            isinstance(item, httpx.HTTPStatusError)
            and item.response.status_code >= _FIRST_SERVER_ERROR
        )
        for item in chain
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        waiting += [item.__cause__, item.__context__]
        if isinstance(item, BaseExceptionGroup):
            waiting += item.exceptions


def _comes_back(deadline: float) -> bool:
    """Wait for a healthy server until `deadline`, in seconds of `time.monotonic`."""
    while time.monotonic() < deadline:
        # An embedded server may have to be started, and fail to.
        with contextlib.suppress(RuntimeError), get_client(sync_client=True) as client:
            if client.api_healthcheck() is None:
                return True
        time.sleep(_POLL_SECONDS)
    return False

"""Sends what changes to the Prefect server from one thread, of each thing the latest only.

Who reports progress drains the output of a training: were it to wait for a server that hangs, the
pipe would fill and the training stop.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Hashable

_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 600.0
"""As for the stages (`tasks.restarts`): an update of the server takes minutes."""
_SECONDS_TO_END = 1.0
_logger = logging.getLogger(__name__)

Send = Callable[[], bool]
"""Sends something; False when it is worth another try."""


class Outbox:
    """What waits to be sent, and the thread that sends it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, tuple[float, Send]] = {}
        self._is_sending = self._is_closed = False
        self._thread: threading.Thread | None = None

    def put(self, key: Hashable, send: Send) -> None:
        """Have something sent soon, in place of what waits under the same key; returns at once."""
        with self._changed:
            if self._is_closed:
                return
            self._waiting[key] = (time.monotonic(), send)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tsp-outbox", daemon=True)
                self._thread.start()
                # Before the embedded server ends: who sends later would start another one.
                atexit.register(self.close)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent, so long at most; tells whether it is."""
        with self._changed:
            return self._changed.wait_for(self._is_empty, seconds)

    def close(self) -> None:
        """Send no more; what is being sent may go on for a moment."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()
            self._changed.wait_for(self._is_empty, _SECONDS_TO_END)

    def _is_empty(self) -> bool:
        return not self._waiting and not self._is_sending

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                key = next(iter(self._waiting))
                put_at, send = self._waiting.pop(key)
                self._is_sending = True
            is_done = _tried(send) or time.monotonic() - put_at > _PATIENCE_SECONDS
            with self._changed:
                self._is_sending = False
                if not is_done and not self._is_closed:
                    self._waiting.setdefault(key, (put_at, send))
                self._changed.notify_all()
                if not is_done:
                    self._changed.wait_for(lambda: self._is_closed, _PAUSE_SECONDS)


def _tried(send: Send) -> bool:
    """Whether there is no more to do; the thread outlives whatever goes wrong."""
    try:
        return send()
    except Exception as error:
        _logger.warning("this is not shown in the UI: %s: %s", type(error).__name__, error)
        return True

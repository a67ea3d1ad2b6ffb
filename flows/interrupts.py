"""What an interrupt (Ctrl-C) does to a command: one line, a short farewell, exit code 130.

Whatever is published stays, and what is under way may be killed at any moment
(docs/reliability.md), so nothing is waited for: not the shards, which take up to an hour, nor a
server that does not answer. What unwinds within `SECONDS_TO_END` does: Prefect marks the run as
crashed, temporary folders go, training is ended. Then the process ends, and the kernel ends its
children (`tsp_core.tether`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from flows import embedded
from flows.environment import is_debugging

STATUS = 128 + signal.SIGINT
SECONDS_TO_END = 5.0
_SECONDS_FOR_THE_SERVER = 2.0
_SECONDS_FOR_THE_LINE = 1.0
_LINE = (
    "tsp: stopping: what is finished is kept, and the same command goes on from there; a second "
    "interrupt ends this at once"
)


@contextmanager
def handled() -> Iterator[None]:
    """Handle interrupts of what is done inside; where there was one, the process ends with it.

    Where interrupts are ignored (in a background job) or somebody else handles them, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    farewell = _Farewell()
    signal.signal(signal.SIGINT, lambda *_: farewell.begin())
    try:
        yield
    finally:
        farewell.end()
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Farewell:
    """What follows the first interrupt.

    The thread is there before: a handler interrupts anything, also who is about to start a thread
    or to write, and may need no lock that is held then.
    """

    def __init__(self) -> None:
        self._is_stopping = False
        self._over, self._said = threading.Event(), threading.Event()
        threading.Thread(target=self._bound, name="tsp-farewell", daemon=True).start()

    def begin(self) -> NoReturn:
        """Unwind what the main thread is at, for as long as that is allowed to take."""
        signal.signal(signal.SIGINT, lambda *_: _leave_at_once())
        self._is_stopping = True
        self._over.set()
        raise KeyboardInterrupt

    def end(self) -> None:
        """All is unwound: end the process if it is to end."""
        self._over.set()
        if not self._is_stopping:
            return
        self._said.wait(_SECONDS_FOR_THE_LINE)
        embedded.stop(_SECONDS_FOR_THE_SERVER)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(STATUS)  # an ordinary exit would wait for the threads of the shards

    def _bound(self) -> None:
        self._over.wait()
        if self._is_stopping:
            threading.Thread(target=self._say, daemon=True).start()  # nobody may read it
            time.sleep(SECONDS_TO_END)
            _leave_at_once()

    def _say(self) -> None:
        if not is_debugging():
            logging.disable()  # what breaks from here on breaks because of the interrupt
        print(_LINE, file=sys.stderr, flush=True)
        self._said.set()


def _leave_at_once() -> NoReturn:
    embedded.stop(0)
    os._exit(STATUS)

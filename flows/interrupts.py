"""What ends a command from outside (Ctrl-C, SIGTERM, SIGHUP): one line, and a short farewell.

SIGTERM is what `timeout`, systemd, containers and batch systems send, SIGHUP a terminal that is
closed. The exit code is 128 and the signal's number: 130, 143, 129.

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
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from flows import embedded
from flows.environment import is_debugging

SECONDS_TO_END = 8.0
"""Marking a run takes 2 or 3 of them, more on a busy machine; containers are given 10 and more."""
_SECONDS_FOR_THE_SERVER = 2.0
_SECONDS_FOR_THE_LINE = 1.0
_KEPT = (
    "tsp: stopping: what is finished is kept, and the same command goes on from there; a second "
    "interrupt ends this at once"
)
_LOST = "tsp: stopping: nothing of this call is kept; a second interrupt ends this at once"
_SIGNALS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
_OVER, _BEGUN = 0, 255  # no signals have these numbers
_line = _KEPT


@contextmanager
def handled() -> Iterator[None]:
    """Handle interrupts of what is done inside; where there was one, the process ends with it.

    Signals that are ignored (SIGINT in a background job, SIGHUP under nohup) or that somebody else
    handles are left alone.
    """
    global _line
    _line = _KEPT
    ours = {number: old for number, old in _SIGNALS.items() if signal.getsignal(number) is old}
    if not ours:
        yield
        return
    farewell = _Farewell(set(ours))
    for number in ours:
        signal.signal(number, farewell.begin)
    try:
        yield
    finally:
        if not farewell.is_under_way:  # else a second signal must not end it too soon
            for number, old in ours.items():
                signal.signal(number, old)
        farewell.end()


def keeps_nothing() -> None:
    """Have an interrupt say so from now on: what a command makes is written at its end alone."""
    global _line
    _line = _LOST


class _Farewell:
    """What follows the first interrupt.

    The thread is there before: a handler interrupts anything, also who is about to start a thread
    or to write, and may need no lock that is held then. Python tells the thread of signals through
    a pipe, so that it also hears of SIGTERM while a flow runs, which Prefect handles by itself
    then, and while the main thread is in a call that takes long.
    """

    def __init__(self, numbers: set[signal.Signals]) -> None:
        self._numbers = numbers
        self._first: int | None = None
        self._has_begun = False
        self._said = threading.Event()
        self._news, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._told_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._bound, name="tsp-farewell", daemon=True)
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        """Whether there was an interrupt."""
        return self._first is not None

    def begin(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Unwind what the main thread is at, for as long as that is allowed to take."""
        self._first = self._first or number
        if not self._has_begun:
            self._has_begun = True
            os.write(self._told, bytes([_BEGUN]))  # should somebody else have taken over the pipe
            raise KeyboardInterrupt
        # `timeout` sends SIGTERM twice, and Prefect passes on what it has handled.
        if number == signal.SIGINT:
            self._leave_at_once()

    def end(self) -> None:
        """All is unwound: end the process if it is to end."""
        signal.set_wakeup_fd(self._told_before)
        os.write(self._told, bytes([_OVER]))
        if self._first is None:
            self._thread.join()
            os.close(self._told)
            os.close(self._news)
            return
        self._said.wait(_SECONDS_FOR_THE_LINE)
        embedded.stop(_SECONDS_FOR_THE_SERVER)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(128 + self._first)  # an ordinary exit would wait for the threads of the shards

    def _bound(self) -> None:
        number = os.read(self._news, 1)[0]
        while number not in (*self._numbers, _BEGUN):
            if number == _OVER:
                return
            number = os.read(self._news, 1)[0]
        self._first = self._first or number
        threading.Thread(target=self._say, daemon=True).start()  # nobody may read it
        self._wait()
        self._leave_at_once()

    def _wait(self) -> None:
        """Until the time is over, or a second interrupt comes from the keyboard."""
        until = time.monotonic() + SECONDS_TO_END
        while (seconds := until - time.monotonic()) > 0:
            if select.select([self._news], [], [], seconds)[0]:
                number = os.read(self._news, 1)[0]
                if number == signal.SIGINT:
                    return

    def _say(self) -> None:
        if not is_debugging():
            logging.disable()  # what breaks from here on breaks because of the interrupt
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(_line, file=sys.stderr, flush=True)
        self._said.set()

    def _leave_at_once(self) -> NoReturn:
        embedded.stop(0)
        assert self._first is not None
        os._exit(128 + self._first)

"""Prefect's embedded server, which a run without PREFECT_API_URL has for itself.

Prefect starts it when it is first asked for something, in the process group of the terminal: an
interrupt from the keyboard would end it together with the run, which could then not be marked as
crashed and would wait for the server for minutes. So it is started here, deaf to interrupts, and
ended when the run is.
"""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

_server: SubprocessASGIServer | None = None


def start() -> None:
    """Start the server where this process uses one of its own; Prefect finds it running.

    Raises:
        RuntimeError: It does not start.
    """
    global _server
    from prefect.client.base import ServerType, determine_server_type

    if determine_server_type() is not ServerType.EPHEMERAL:
        return
    from prefect.server.api.server import SubprocessASGIServer

    _server = SubprocessASGIServer()
    # A thread, since this one must hear interrupts while the server starts.
    thread = ThreadPoolExecutor(1, initializer=_be_deaf)
    try:
        thread.submit(_server.start).result()
    finally:
        thread.shutdown(wait=False)


def _be_deaf() -> None:
    """Hold interrupts back from this thread, and from the processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def stop(seconds: float) -> None:
    """End the server, after so long by force; its database stands that."""
    process = None if _server is None else _server.server_process
    if process is None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()

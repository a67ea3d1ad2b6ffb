"""Serves the work pool: runs the worker that is named, and lets its runs end when it is to stop.

Prefect's worker kills the processes of its runs when it is stopped, and the server is not told: it
keeps the runs as `Running`. A run whose process is told itself ends, and the server has it as
`Crashed`.

    python infra/serve.py prefect worker start --pool tsp
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SECONDS = 45.0
"""For the runs to end; less than the container gets (`stop_grace_period` in compose.yaml)."""


def main() -> None:
    """Run the command of the arguments; its exit code is passed on."""
    worker = subprocess.Popen(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(worker))
    sys.exit(worker.wait())


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """Tell the runs to end, then the worker."""
    told: set[int] = set()
    deadline = time.monotonic() + SECONDS
    while (runs := _children(worker.pid)) and time.monotonic() < deadline:
        for run in runs - told:  # one may have been started meanwhile
            with suppress(ProcessLookupError):
                os.kill(run, signal.SIGTERM)
        told |= runs
        time.sleep(0.2)
    worker.terminate()


def _children(pid: int) -> set[int]:
    """The processes that a process has started."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread or process has ended
            found.update(int(child) for child in path.read_text().split())
    return found


if __name__ == "__main__":
    main()

"""Ties a process to the life of the one that started it.

`python -m tsp_core.tether ARGS...` becomes `python ARGS...`, tied: when the parent dies,
however it dies, the kernel kills the child. (Setting this between fork and exec, as `preexec_fn`
would, is not safe in a parent with threads.) Linux only; elsewhere it only starts the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_PARENT = "TSP_PARENT"


def tied(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a child of this process that is going to call `die_with_parent`.

    It names this process: a child whose parent dies while it starts up finds itself adopted.
    """
    return {**environment, _PARENT: str(os.getpid())}


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies; end it if the parent is dead.

    Children of this process that call this in turn are tied to this process.

    Args:
        parent: Process id of the parent; by default the one named by `tied`.
    """
    if sys.platform != "linux":
        return
    expected = parent or int(os.environ.get(_PARENT, os.getppid()))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != expected:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[_PARENT] = str(os.getpid())


if __name__ == "__main__":
    die_with_parent()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606 - it is ours

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

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606 - it is ours

"""How the training processes of a machine share its cores."""

from __future__ import annotations

import os
from typing import Literal

from tsp_core.config import PretrainConfig

_MAX_LOADERS = 12


def share_of_cores(pretrain: PretrainConfig, device: Literal["cpu", "cuda"]) -> tuple[int, int]:
    """Threads and loader processes of each training process, from this machine's cores.

    On the CPU both share the cores: with a large encoder the loaders mostly wait, with a tiny one
    the trainer does. With one core the trainer reads the clips itself.
    """
    mine = max(1, _num_cores() // pretrain.processes)
    by_default = min(mine, _MAX_LOADERS) if device == "cuda" or mine > 1 else 0
    return mine, by_default if pretrain.workers is None else pretrain.workers


def _num_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS, where it is set, is obeyed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores or 1, int(limit)) if limit.isdigit() and int(limit) else cores or 1

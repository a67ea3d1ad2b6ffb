"""How many cores this process may use, and how the training processes of a machine share them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from tsp_core.config import PretrainConfig
from tsp_core.errors import ConfigError

CORES = "TSP_CORES"
"""Environment variable: the cores of a machine that are meant for this process."""

_MAX_LOADERS = 12
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(m?)")


def share_of_cores(pretrain: PretrainConfig, device: Literal["cpu", "cuda"]) -> tuple[int, int]:
    """Threads and loader processes of each training process, from this machine's cores.

    On the CPU both share the cores: with a large encoder the loaders mostly wait, with a tiny one
    the trainer does. With one core the trainer reads the clips itself. OMP_NUM_THREADS, where it is
    set, is obeyed.
    """
    mine = max(1, _num_threads() // pretrain.processes)
    by_default = min(mine, _MAX_LOADERS) if device == "cuda" or mine > 1 else 0
    return mine, by_default if pretrain.workers is None else pretrain.workers


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those it may run on, its container's quota, TSP_CORES.

    The smallest of them counts, rounded up. A container sees all cores of its machine: one with a
    quota is held back when it uses more, and a Kubernetes Job that reserves some without a quota
    takes the others from its neighbours.

    Args:
        root: Where the kernel's files are, `/proc` and `/sys`.

    Raises:
        ConfigError: TSP_CORES is not a number of cores.
    """
    bounds = [float(_cores_to_run_on()), *_quotas(root)]
    if text := os.environ.get(CORES, ""):
        bounds.append(_amount(text))
    return max(1, math.ceil(min(bounds)))


def _num_threads() -> int:
    cores = available_cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


def _cores_to_run_on() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas (cgroup v2) of this process's group and of all groups that it is in, in cores."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        if not group.startswith("0::"):  # version 1
            continue
        own = PurePosixPath(group.removeprefix("0::"))
        # In a container the group's own folder may not be visible; the container's is at the top.
        for folder in (own, *own.parents):
            try:
                text = (root / "sys/fs/cgroup" / folder.relative_to("/") / "cpu.max").read_text()
            except OSError:
                continue
            quota, period = text.split()
            if quota != "max":
                yield int(quota) / int(period)


def _amount(text: str) -> float:
    """A number of cores as people and Kubernetes write it: `8`, `2.5`, `500m`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{CORES}: {text!r} is not a number of cores; write 8, 2.5 or, as Kubernetes, 500m"
        )
    return float(match[1]) / (1000 if match[2] else 1)

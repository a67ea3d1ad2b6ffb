"""What a stage costs: wall time, CPU and GPU time on this machine, bytes published."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

from tasks.workers import num_workers, uses_gpu
from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config

_GPU_STAGES = ("gvf", "pretrain", "export", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What something has cost.

    Attributes:
        seconds: Wall time.
        cpu_seconds: CPU time of this process and the processes that it started and that ended;
            shards on a Ray cluster are not in it.
        gpu_seconds: Wall time times the GPUs that were in use.
        num_bytes: Bytes published.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    num_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            num_bytes=self.num_bytes + other.num_bytes,
        )


class Meter:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu_seconds = _cpu_seconds()

    def read(self, *, num_gpus: int = 0, num_bytes: int = 0) -> Usage:
        """What has been used since."""
        seconds = time.monotonic() - self._began
        return Usage(
            seconds=seconds,
            cpu_seconds=_cpu_seconds() - self._cpu_seconds,
            gpu_seconds=seconds * num_gpus,
            num_bytes=num_bytes,
        )


def gpus_of(config: Config, stage: str) -> int:
    """How many GPUs a stage keeps in use."""
    if stage not in _GPU_STAGES or not uses_gpu(config):
        return 0
    if stage == "pretrain":
        return config.pretrain.processes
    return 1 if stage == "evaluate" else num_workers(config, stage)


def published_bytes(artifact: ArtifactRef) -> int:
    """Size of an artifact's files."""
    files = artifacts.read_marker(artifact.uri).files
    return sum(entry.size_bytes for entry in files.values())


def _cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    found = [resource.getrusage(kind) for kind in kinds]
    return sum(item.ru_utime + item.ru_stime for item in found)

"""How many shards of a stage run at a time on this machine."""

from __future__ import annotations

from tsp_core.config import Config
from tsp_core.training.cores import available_cores

MODEL_STAGES = frozenset({"gvf", "export"})
"""Stages whose shards run a model; those of the others only decode."""


def num_workers(config: Config, stage: str) -> int:
    """`runtime.workers`; by default the cores, or one where a GPU does the work.

    Raises:
        ConfigError: TSP_CORES is not a number of cores.
    """
    if config.runtime.workers is not None:
        return config.runtime.workers
    cores = available_cores()
    if stage not in MODEL_STAGES:
        return cores
    if uses_gpu(config):
        return 1
    return max(1, cores // 4)  # the model itself uses the cores; several overlap decoding with it


def uses_gpu(config: Config) -> bool:
    """Tell whether models run on a GPU here."""
    if config.runtime.device != "auto":
        return config.runtime.device == "cuda"
    import torch  # the model stages need it anyway; nothing else does

    return torch.cuda.is_available()

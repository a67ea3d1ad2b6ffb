"""The processes of one training run and what they exchange."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_TIMEOUT = timedelta(minutes=30)  # one process may store a checkpoint while the others wait


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all; without torchrun it is alone.

    Attributes:
        rank: This process, from 0.
        size: Processes in all.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and sends updates."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make backward average the gradients over all processes."""
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all processes."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (BatchNorm statistics).

        Each forward pass in training begins with the same exchange; validation and checkpoints
        need it after the last one.
        """
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def gather(self, value: list[str]) -> list[str]:
        """Concatenate the lists of all processes."""
        if self.size == 1:
            return value
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


def join_world(device: str) -> World:
    """Join the processes that torchrun started, over loopback: gloo on the CPU, NCCL on CUDA."""
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = torch.device("cpu")
    if device == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if size > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_TIMEOUT)
    return World(rank=rank, size=size, device=chosen)


def leave_world() -> None:
    """Leave the processes; must follow `join_world` in every case."""
    if dist.is_initialized():
        dist.destroy_process_group()

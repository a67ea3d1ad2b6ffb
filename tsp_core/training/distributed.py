"""The processes of one training run and what they exchange."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tsp_core.errors import ConfigError

_TIMEOUT = timedelta(minutes=30)  # one process may store a checkpoint while the others wait


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all; without torchrun it is alone.

    Attributes:
        rank: This process, from 0.
        local_rank: This process among those of its machine, from 0.
        size: Processes in all.
        device: Where this process computes.
    """

    rank: int
    local_rank: int = 0
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and sends updates."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this process fetches files for all of its machine."""
        return self.local_rank == 0

    @property
    def share(self) -> dict[str, int]:
        """Which part of each batch is this process's, as the samplers take it."""
        return {"world_size": self.size, "rank": self.rank}

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make backward average the gradients over all processes.

        Parameters are looked for that a step did not use, although encoders here use all of
        theirs, which takes a walk over the graph per step: where that is off, gradients are
        arranged anew after a process's first step, so that three processes or more add them up in
        another order, and a run that was continued would differ in its last digits.
        """
        if self.size == 1:
            return model
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=True,
        )

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


def join_world(device: str, *, node: int = 0, num_nodes: int = 1) -> World:
    """Join the processes that torchrun started: gloo on the CPU, NCCL on CUDA.

    Args:
        device: "cpu" or "cuda".
        node: This machine among all.
        num_nodes: Machines that train together.

    Raises:
        ConfigError: Two machines have the same number.
    """
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device("cpu")
    if device == "cuda":
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    store = None
    if num_nodes > 1:
        store = _store(size, node)
        rank = node * (size // num_nodes) + local_rank
    if size > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        # Without a store, rank and size it takes torchrun's.
        given = {} if store is None else {"store": store, "rank": rank, "world_size": size}
        dist.init_process_group(backend, timeout=_TIMEOUT, **given)
    return World(rank=rank, local_rank=local_rank, size=size, device=chosen)


def _store(size: int, node: int) -> Any:
    """The TCP store through which the processes of several machines find each other.

    torchrun numbers machines by their addresses, and anew after each loss. Here a machine keeps
    its number, so that the flow's is the first, which writes files and tells the progress, and
    every clip is seen by the same process as before.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_host = os.environ["RANK"] == "0"  # as torchrun counts, whose first machine is `host`
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_host, _TIMEOUT, wait_for_workers=False
    )
    if store.add(f"processes of node {node}", 1) > int(os.environ["LOCAL_WORLD_SIZE"]):
        raise ConfigError(
            f"--node {node}: another machine of the training has this number; give each of them "
            "one of its own"
        )
    return store


def leave_world() -> None:
    """Leave the processes, if this one has joined any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def uses_nccl() -> bool:
    """Tell whether this process has joined others that train on GPUs."""
    return dist.is_initialized() and dist.get_backend() == "nccl"

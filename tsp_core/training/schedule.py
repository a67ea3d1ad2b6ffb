"""The optimiser's parameter groups and their learning rate at each iteration.

Everything here is a pure function of the configuration and the iteration, so a resumed run needs
no scheduler state.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch import nn

from tsp_core.config import PretrainConfig

GROUPS = ("stem", "layers", "heads")
"""Parameter groups, in the optimiser's order."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then steps at milestones (paper, section 4.1), per iteration.

    Attributes:
        warmup_iterations: Length of the warm-up; fractions of an iteration count.
        warmup_factor: Factor at iteration 0.
        milestones: Iterations from which the rate is multiplied by `gamma` once more, sorted.
        gamma: Factor at each milestone.
    """

    warmup_iterations: float
    warmup_factor: float
    milestones: tuple[float, ...]
    gamma: float

    def factor(self, iteration: int) -> float:
        """Factor on every group's base learning rate at the step `iteration`, counted from 0."""
        warmup = 1.0
        if iteration < self.warmup_iterations:
            alpha = iteration / self.warmup_iterations
            warmup = self.warmup_factor * (1 - alpha) + alpha
        return warmup * self.gamma ** bisect_right(self.milestones, iteration)


def build_schedule(pretrain: PretrainConfig, iterations_per_epoch: int) -> Schedule:
    """Turn the schedule in epochs of the configuration into one in iterations."""
    return Schedule(
        warmup_iterations=pretrain.warmup_epochs * iterations_per_epoch,
        warmup_factor=pretrain.warmup_factor,
        milestones=tuple(sorted(epoch * iterations_per_epoch for epoch in pretrain.milestones)),
        gamma=pretrain.gamma,
    )


def base_rates(pretrain: PretrainConfig, world_size: int) -> dict[str, float]:
    """Learning rate of each group before the schedule's factor."""
    scale = world_size if pretrain.scale_lr else 1
    return {
        "stem": pretrain.stem_lr * scale,
        "layers": pretrain.layers_lr * scale,
        "heads": pretrain.heads_lr * scale,
    }


def group_of(parameter_name: str) -> str:
    """Group of a parameter of a `TSPModel`, by its name in the state dict."""
    if parameter_name.startswith("features.stem."):
        return "stem"
    return "layers" if parameter_name.startswith("features.") else "heads"


def build_optimizer(model: nn.Module, pretrain: PretrainConfig, world_size: int) -> torch.optim.SGD:
    """Build SGD with one parameter group each for stem, layers and heads.

    A group whose rate is 0 stays in the optimiser, as in the released code, but its parameters
    ask for no gradient: a step of size 0 leaves them alone, weight decay included, so computing
    one would be wasted. Its BatchNorm statistics still follow the data.
    """
    rates = base_rates(pretrain, world_size)
    members: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        group = group_of(name)
        parameter.requires_grad_(rates[group] > 0)
        members[group].append(parameter)
    return torch.optim.SGD(
        [{"params": members[name], "lr": rates[name], "name": name} for name in GROUPS],
        momentum=pretrain.momentum,
        weight_decay=pretrain.weight_decay,
    )


def set_rates(
    optimizer: torch.optim.Optimizer, rates: dict[str, float], factor: float
) -> dict[str, float]:
    """Set the learning rate of every group for the coming step; return them by group."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["name"]] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}

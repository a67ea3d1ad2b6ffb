"""Draws from PyTorch's global generator that depend on a seed alone.

Initialisation and dropout draw from one generator that all threads of a process share. Whoever
seeds it must therefore be the only one that draws until it is done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def seeded_draws(seed: int) -> Iterator[None]:
    """Seed PyTorch's generator of the CPU for a block, and leave it as it was found.

    Blocks of several threads take turns, so that each draws as if it were alone.

    Args:
        seed: Of the generator, as in `torch.manual_seed`.
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

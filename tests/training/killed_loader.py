"""Run by a test, which kills it: prints the ids of its loader processes and reads for ever."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tests.training.tiny import CLIP
from tsp_core.training.index import open_index
from tsp_core.training.loader import ClipLoader
from tsp_core.training.samplers import validation_plan


def main(folder: str) -> None:
    index = open_index(Path(folder))
    loader = ClipLoader(index, CLIP, device=torch.device("cpu"), num_workers=2, cache_dir=None)
    plan = validation_plan(np.arange(9), clips_per_segment=1, crop_top=0, crop_left=0)
    for number, _ in enumerate(loader.batches(plan, itertools.repeat(np.arange(9), 10_000))):
        if number == 0:
            workers = loader._loader._iterator._workers
            print(*(worker.pid for worker in workers), flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])

"""Features of made-up videos in which every class has a direction of its own."""

from __future__ import annotations

import numpy as np

from tests.evaluation.detection.oracle import Row, truth
from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.localizers.sequences import FeatureSequence

STRIDE, FEATURE_SIZE = 0.5, 8


def sequence(name: str, features: np.ndarray, *, stride: float = STRIDE) -> FeatureSequence:
    """Features [N, F] at regular times, half a stride from the start."""
    t_center = (np.arange(len(features)) + 0.5) * stride
    return FeatureSequence(
        video=name,
        features=np.asarray(features, dtype=np.float32),
        t_center=t_center,
        stride_seconds=stride,
        duration_seconds=len(features) * stride,
    )


def made_up(
    num_videos: int, *, seed: int, num_classes: int = 2, noise: float = 0.3
) -> tuple[dict[str, FeatureSequence], Instances]:
    """Draw videos of 60 to 90 rows with actions of 2 to 8 s, and their annotations."""
    draws = np.random.default_rng(seed)
    sequences: dict[str, FeatureSequence] = {}
    rows: list[Row] = []
    for number in range(num_videos):
        name = f"video_{seed}_{number:02d}"
        num_rows = int(draws.integers(60, 91))
        features = draws.normal(0, noise, (num_rows, FEATURE_SIZE))
        times = (np.arange(num_rows) + 0.5) * STRIDE
        start = draws.uniform(1, 4)
        while (end := start + draws.uniform(2, 8)) < num_rows * STRIDE:
            label = int(draws.integers(num_classes))
            features[(times >= start) & (times < end), label] += 2.0
            rows.append((name, label, start, end))
            start = end + draws.uniform(1.5, 4)
        sequences[name] = sequence(name, features)
    return sequences, truth(*rows)

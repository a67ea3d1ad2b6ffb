"""Time of the detection metrics at the size of THUMOS14: 3,358 instances, 200,000 detections.

Run `python benchmarks/detection_metrics.py`; it prints one line per metric, on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from tsp_core.evaluation.detection.average_precision import (
    ACTIVITYNET_TIOU,
    THUMOS14_TIOU,
    mean_average_precision,
)
from tsp_core.evaluation.detection.breakdown import THUMOS14_SECONDS, breakdown_by_length
from tsp_core.evaluation.detection.instances import Detections, Instances
from tsp_core.evaluation.detection.matching import match
from tsp_core.evaluation.detection.proposals import proposal_recall

NUM_VIDEOS, NUM_CLASSES, MAX_SECONDS = 213, 20, 30.0


def made_up(num_instances: int, num_detections: int, seed: int) -> tuple[Instances, Detections]:
    """Draw instances of one or two classes a video, and detections of which half are near one."""
    draws = np.random.default_rng(seed)
    videos = draws.integers(NUM_VIDEOS, size=num_instances)
    starts = draws.uniform(0, 200, num_instances)
    truth = Instances(
        videos=np.array([f"video_{number}" for number in videos], dtype=object),
        label_indices=(videos + draws.integers(2, size=num_instances)) % NUM_CLASSES,
        t_start=starts,
        t_end=starts + draws.uniform(0.5, MAX_SECONDS, num_instances),
    )
    near = truth.take(draws.integers(num_instances, size=num_detections))
    is_near = draws.random(num_detections) < 0.5
    shift = np.where(is_near, 1.0, 30.0) * draws.normal(size=(2, num_detections))
    detected_starts = near.t_start + shift[0]
    detections = Detections(
        videos=near.videos,
        label_indices=near.label_indices,
        t_start=detected_starts,
        t_end=np.maximum(near.t_end + shift[1], detected_starts + 0.1),
        scores=draws.random(num_detections) + 0.3 * is_near,
    )
    return truth, detections


def timed(name: str, work: Callable[[], float]) -> None:
    """Run once and print the wall time and the figure."""
    start = time.perf_counter()
    value = work()
    print(f"{name:<32} {time.perf_counter() - start:7.2f} s   value {value:.4f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=3358)
    parser.add_argument("--detections", type=int, default=200_000)
    arguments = parser.parse_args()
    truth, found = made_up(arguments.instances, arguments.detections, seed=0)
    print(f"{len(truth):,} instances, {len(found):,} detections")

    def average_map(thresholds: tuple[float, ...]) -> float:
        return mean_average_precision(truth, found, tiou_thresholds=thresholds).mean

    timed("mAP 0.5:0.05:0.95", lambda: average_map(ACTIVITYNET_TIOU))
    timed("mAP 0.3:0.1:0.7", lambda: average_map(THUMOS14_TIOU))
    timed("AR@AN", lambda: proposal_recall(truth, found).area)
    matches = match(truth, found, THUMOS14_TIOU)
    timed(
        "breakdown by length, matched",
        lambda: (
            breakdown_by_length(matches, THUMOS14_SECONDS, durations_seconds={})[0].average_map
            or 0.0
        ),
    )


if __name__ == "__main__":
    main()

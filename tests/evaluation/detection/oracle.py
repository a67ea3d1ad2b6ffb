"""Slow, plain restatements of the metrics, and random data for them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tsp_core.evaluation.detection.instances import Detections, Instances

Row = tuple[str, int, float, float]
ScoredRow = tuple[str, int, float, float, float]


def truth(*rows: Row) -> Instances:
    """Instances from rows of video, class, start, end."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Instances(
        videos=np.array(columns[0], dtype=object),
        label_indices=np.array(columns[1], dtype=np.int64),
        t_start=np.array(columns[2], dtype=np.float64),
        t_end=np.array(columns[3], dtype=np.float64),
    )


def found(*rows: ScoredRow) -> Detections:
    """Detections from rows of video, class, start, end, score."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    return Detections(
        videos=np.array(columns[0], dtype=object),
        label_indices=np.array(columns[1], dtype=np.int64),
        t_start=np.array(columns[2], dtype=np.float64),
        t_end=np.array(columns[3], dtype=np.float64),
        scores=np.array(columns[4], dtype=np.float64),
    )


def tiou(first: tuple[float, float], second: tuple[float, float]) -> float:
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - shared
    return shared / union if union > 0 else 0.0


def best_first(values: list[float]) -> list[int]:
    """Indices by falling value; of equal values the later one first."""
    return sorted(range(len(values)), key=lambda i: (-values[i], -i))


def slow_average_precision(
    instances: list[Row], detections: list[ScoredRow], label: int, threshold: float
) -> float:
    """Average precision of one class, detection by detection."""
    instances = [row for row in instances if row[1] == label]
    detections = [row for row in detections if row[1] == label]
    taken: set[int] = set()
    right: list[bool] = []
    for index in best_first([row[4] for row in detections]):
        video, _, start, end, _ = detections[index]
        near = [i for i, row in enumerate(instances) if row[0] == video]
        overlaps = [tiou((start, end), instances[i][2:4]) for i in near]
        hit = None
        for position in best_first(overlaps):
            if overlaps[position] < threshold:
                break
            if near[position] not in taken:
                hit = near[position]
                break
        if hit is not None:
            taken.add(hit)
        right.append(hit is not None)
    area, previous = 0.0, 0.0
    precisions = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
    for i in range(len(right)):
        recall = sum(right[: i + 1]) / len(instances)
        area += (recall - previous) * max(precisions[i:])
        previous = recall
    return area


def slow_average_recall(
    instances: list[Row],
    proposals: list[ScoredRow],
    thresholds: tuple[float, ...],
    max_per_video: float,
) -> list[float]:
    """Average recall at the 100 points, video by video and point by point."""
    videos = sorted({row[0] for row in instances})
    ratio = max_per_video * float(len(videos)) / max(len(proposals), 1)
    kept: dict[str, list[ScoredRow]] = {}
    for video in videos:
        own = [row for row in proposals if row[0] == video]
        own = [own[i] for i in best_first([row[4] for row in own])]
        kept[video] = own[: min(int(len(own) * ratio), len(own))]
    num_kept = sum(len(rows) for rows in kept.values())
    averages = []
    for point in range(1, 101):
        recalls = []
        for threshold in thresholds:
            hits = 0
            for video, _, start, end in instances:
                rows = kept[video]
                count = 0
                if num_kept:
                    share = point / 100 * (max_per_video * float(len(videos)) / num_kept)
                    count = min(int(len(rows) * share), len(rows))
                hits += any(tiou((start, end), row[2:4]) >= threshold for row in rows[:count])
            recalls.append(hits / len(instances))
        averages.append(sum(recalls) / len(recalls))
    return averages


_videos = st.sampled_from(["a", "b", "c"])
_labels = st.integers(0, 2)
_times = st.integers(0, 20).map(lambda tick: tick / 2)  # a coarse grid, so that ties are common
_lengths = st.integers(1, 12).map(lambda tick: tick / 2)
_scores = st.integers(0, 5).map(lambda tick: tick / 5)


def _segment(draw: tuple[str, int, float, float]) -> Row:
    video, label, start, length = draw
    return (video, label, start, start + length)


rows_of_truth = st.lists(st.tuples(_videos, _labels, _times, _lengths).map(_segment), max_size=15)
rows_of_detections = st.lists(
    st.tuples(st.tuples(_videos, _labels, _times, _lengths).map(_segment), _scores).map(
        lambda pair: (*pair[0], pair[1])
    ),
    max_size=40,
)

"""How detection depends on the length of the instances, as DETAD analyses it.

Alwassel et al., *Diagnosing Error in Temporal Action Detectors* (ECCV 2018), and its code
(`src/sensitivity_analysis.py`): instances fall into bins by coverage (length as a share of the
video) and by length in seconds; the average mAP of a bin counts the instances of that bin as ground
truth and leaves out the detections that were matched, at any threshold, to instances of other bins;
false positives count in every bin. Classes without instances in a bin are left out of its mean.

DETAD's precision is normalised: with N instances per class on average over the data set,
precision = recall * N / (recall * N + false positives), so that rare bins are comparable
with common ones. This is the default here; `normalised=False` gives the plain precision.

Departures: DETAD drops instances that are longer than their video, here their coverage is 1; it
analyses THUMOS14 at the threshold 0.5 alone, here the protocol's thresholds count; and its false
negatives include instances whose detection comes so late in the list that the precision has fallen
below 5 %, here each match counts as found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.average_precision import interpolated_area
from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.detection.matching import Matches

_NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True, kw_only=True)
class LengthBins:
    """Bins of lengths: bin i is (edges[i], edges[i + 1]], and the first includes its lower edge.

    Attributes:
        measure: "coverage" (share of the video) or "seconds".
        edges: Rising; one more than there are labels.
        labels: Names of the bins.

    Raises:
        ValueError: The edges do not rise or do not fit the labels.
    """

    measure: Literal["coverage", "seconds"]
    edges: tuple[float, ...]
    labels: tuple[str, ...] = _NAMES

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.labels) + 1:
            raise ValueError(
                f"edges: {len(self.edges)} for {len(self.labels)} labels; give one more than labels"
            )
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges: {self.edges}; every edge must be above the one before")

    def ranges(self) -> tuple[str, ...]:
        """The bins' bounds for people, such as "30-60 s" or "over 180 s"."""
        factor, unit = (100, " %") if self.measure == "coverage" else (1, " s")
        written = _written([edge * factor for edge in self.edges])
        return tuple(
            f"{least}-{most}{unit}" if np.isfinite(high) else f"over {least}{unit}"
            for least, most, high in zip(written, written[1:], self.edges[1:], strict=False)
        )


ACTIVITYNET_COVERAGE = LengthBins(measure="coverage", edges=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
ACTIVITYNET_SECONDS = LengthBins(measure="seconds", edges=(0.0, 30.0, 60.0, 120.0, 180.0, np.inf))
THUMOS14_COVERAGE = LengthBins(measure="coverage", edges=(0.0, 0.02, 0.04, 0.06, 0.08, 1.0))
THUMOS14_SECONDS = LengthBins(measure="seconds", edges=(0.0, 3.0, 6.0, 12.0, 18.0, np.inf))


@dataclass(frozen=True, kw_only=True)
class BinScore:
    """Detection of the instances of one bin.

    Attributes:
        label: Name of the bin.
        num_instances: How many there are.
        average_map: Average mAP over thresholds and classes; None without instances.
        recall: Share of the instances matched, averaged over the thresholds; None without
            instances.
    """

    label: str
    num_instances: int
    average_map: float | None
    recall: float | None


def _written(edges: Sequence[float]) -> list[str]:
    """Rising values in three digits, at least whole ones, or in as many more as tell them apart."""
    written: list[str] = []
    for digits in range(3, 18):
        written = [_in_digits(edge, digits) for edge in edges]
        if len(set(written)) == len(edges):
            break
    return written


def _in_digits(value: float, digits: int) -> str:
    before_point = len(str(int(value))) if np.isfinite(value) else 0
    decimals = max(0, digits - before_point)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantile_bins(instances: Instances, *, num_bins: int = 4) -> LengthBins:
    """Bins in seconds that hold equally many instances, for data that DETAD's bins do not split.

    Edges are lengths of instances, so that no bin is empty; edges that coincide are merged.

    Raises:
        ValueError: There are no instances.
    """
    if len(instances) == 0:
        raise ValueError("instances: none; quantiles of their lengths are not defined")
    lengths = instances.lengths_seconds
    inner = np.quantile(lengths, np.arange(1, num_bins) / num_bins, method="inverted_cdf")
    edges = np.unique(np.concatenate([[0.0], inner[inner < lengths.max()]]))
    labels = tuple(f"Q{number}" for number in range(1, len(edges) + 1))
    return LengthBins(measure="seconds", edges=(*edges.tolist(), np.inf), labels=labels)


def breakdown_by_length(
    matches: Matches,
    bins: LengthBins,
    *,
    durations_seconds: Mapping[str, float],
    normalised: bool = True,
) -> tuple[BinScore, ...]:
    """Score each bin.

    Args:
        matches: Detections matched to all ground truth.
        bins: The bins.
        durations_seconds: Duration by video; used for coverage only.
        normalised: DETAD's normalised precision, or the plain one.

    Raises:
        ValueError: A video's duration is missing or not positive.
    """
    placed = _bin_of_instances(matches.ground_truth, bins, durations_seconds)
    num_classes = len(np.unique(matches.ground_truth.label_indices))
    per_class = len(placed) / max(num_classes, 1) if normalised else None
    return tuple(
        _score_bin(matches, placed == number, label, per_class)
        for number, label in enumerate(bins.labels)
    )


def _bin_of_instances(
    instances: Instances, bins: LengthBins, durations_seconds: Mapping[str, float]
) -> NDArray[np.int64]:
    """Number of each instance's bin, -1 outside all, int64 [G]."""
    values = instances.lengths_seconds
    if bins.measure == "coverage":
        values = np.minimum(values / _durations(instances, durations_seconds), 1.0)
    edges = np.asarray(bins.edges)
    placed = np.searchsorted(edges, values, side="left") - 1
    placed[values == edges[0]] = 0
    placed[values > edges[-1]] = -1
    return placed.astype(np.int64)


def _durations(instances: Instances, durations_seconds: Mapping[str, float]) -> NDArray[np.float64]:
    for video in sorted(set(instances.videos.tolist())):
        if not durations_seconds.get(video, 0.0) > 0:
            raise ValueError(
                f"durations_seconds[{video!r}]: {durations_seconds.get(video)}; coverage needs "
                "the positive duration of every annotated video"
            )
    return np.array([durations_seconds[video] for video in instances.videos.tolist()])


def _score_bin(
    matches: Matches, in_bin: NDArray[np.bool_], label: str, per_class: float | None
) -> BinScore:
    if not in_bin.any():
        return BinScore(label=label, num_instances=0, average_map=None, recall=None)
    matched = matches.matched
    elsewhere = ((matched >= 0) & ~in_bin[np.maximum(matched, 0)]).any(axis=0)
    labels, counts = np.unique(matches.ground_truth.label_indices[in_bin], return_counts=True)
    values: list[float] = []
    for class_index, num_instances in zip(labels.tolist(), counts.tolist(), strict=True):
        kept = (matches.detections.label_indices == class_index) & ~elsewhere
        for row, ignored in zip(matched, matches.ignored, strict=True):
            right = row[kept & ~ignored] >= 0
            values.append(_area(right, num_instances, per_class))
    num_found = [int(in_bin[row[row >= 0]].sum()) for row in matched]
    return BinScore(
        label=label,
        num_instances=int(in_bin.sum()),
        average_map=float(np.mean(values)),
        recall=float(np.mean(num_found) / in_bin.sum()),
    )


def _area(right: NDArray[np.bool_], num_instances: int, per_class: float | None) -> float:
    """Average precision of detections in the order of falling score."""
    recall = np.cumsum(right) / num_instances
    weighted = recall * (num_instances if per_class is None else per_class)
    wrong = np.cumsum(~right)
    total = weighted + wrong
    precision = np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)
    return interpolated_area(precision, recall)
